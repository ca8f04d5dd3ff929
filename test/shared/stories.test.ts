import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { generate } from "../../src/flag/generate.js";
import { loadModel } from "../../src/formats/load-model.js";
import { forward, head } from "../../src/model/forward.js";
import type { Model } from "../../src/model/model.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { BACKENDS } from "../backends.js";
import { maxDifference } from "../golden.js";
import { sharedMissing, sharedPath } from "../shared.js";

const folder = sharedPath("data", "models", "stories260K");

describe.skipIf(sharedMissing("data", "models", "stories260K"))("stories260K against run.c", () => {
  describe.each(BACKENDS)("on $name", ({ create }) => {
    let backend: Backend;
    let model: Model;
    let tokens: number[];
    beforeAll(async () => {
      backend = await create();
      model = await loadModel(`${folder}/stories260K.bin`, { backend });
      const lines = await readFile(`${folder}/runc_greedy_tokens.txt`, "utf8");
      tokens = lines.trim().split(/\s+/).map(Number);
    });
    afterAll(() => backend?.dispose());

    it("generates the same tokens and text", async () => {
      // A software adapter takes some 100 ms a token, most of it for starting kernels: there a part must do.
      const count = backend.kind === "webgpu" ? 32 : tokens.length;
      // run.c prints one token more than it lists: the likeliest after the last.
      const ids: number[] = [];
      let text = "";
      for await (const step of generate(model, tokens.slice(0, 1), { maxTokens: count })) {
        if (step.token !== null) ids.push(step.token);
        text += step.text;
      }
      expect(ids.slice(0, tokens.length - 1)).toEqual(tokens.slice(1, count + 1));
      const whole = (await readFile(`${folder}/runc_greedy_text.txt`, "utf8")).trimEnd();
      expect(text.trimEnd()).toBe(count < tokens.length ? whole.slice(0, text.trimEnd().length) : whole);
      expect(ids.length).toBe(count);
    });

    it("gives the same logits", async () => {
      const arena = new Arena(backend);
      const tape = new Tape(arena, false);
      const found = await head(tape, model, forward(tape, model, tokens)).read();
      arena.dispose();
      const bytes = await readFile(`${folder}/runc_greedy_logits.f32`);
      const expected = new Float32Array(
        bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
      );
      expect(maxDifference(found, expected)).toBeLessThan(1e-3);
    });
  });
});
