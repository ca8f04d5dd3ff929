import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { redFlagLoss } from "../../src/flag/loss.js";
import { loadRedFlag, saveRedFlag } from "../../src/flag/store.js";
import type { FlaggedModel } from "../../src/flag/vocab.js";
import { loadModel } from "../../src/formats/load-model.js";
import { loraNames, rowNames } from "../../src/formats/peft.js";
import { forward, head } from "../../src/model/forward.js";
import type { Overlay } from "../../src/model/lora.js";
import type { Model } from "../../src/model/model.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { BACKENDS } from "../backends.js";
import { maxDifference, readGolden, relativeDifference } from "../golden.js";
import { sharedMissing, sharedPath } from "../shared.js";

describe.skipIf(sharedMissing("golden"))("the red flag as PyTorch and PEFT compute it", () => {
  describe.each(["redflag", "redflag-untied"])("%s", (name) => {
    const folder = sharedPath("golden", name);

    describe.each(BACKENDS)("on $name", ({ create, slack }) => {
      let backend: Backend;
      let model: Model;
      let flagged: FlaggedModel;
      let golden: Awaited<ReturnType<typeof readGolden>>;
      let facts: Facts;
      beforeAll(async () => {
        backend = await create();
        model = await loadModel(join(folder, "base"), { backend });
        golden = await readGolden(join(folder, "golden.safetensors"));
        facts = JSON.parse(await readFile(join(folder, "golden.json"), "utf8"));
      });
      afterAll(async () => {
        await golden?.close();
        backend?.dispose();
      });

      it("gives the logits of both models", async () => {
        flagged = await loadRedFlag(model, join(folder, "adapter"));
        expect(flagged.flagId).toBe(facts.rf_id);
        const [x, y, b, z, sequence] = await Promise.all(
          ["x", "y", "b", "z", "sequence"].map(golden.integers),
        );
        const cases = [
          ["logits_harmful", sequence, flagged.overlay],
          ["logits_benign", [...(b ?? []), ...(z ?? [])], flagged.overlay],
          ["ref_logits_harmful", [...(x ?? []), ...(y ?? [])], flagged.reference],
          ["ref_logits_benign", [...(b ?? []), ...(z ?? [])], flagged.reference],
        ] as const;
        for (const [tensor, ids, overlay] of cases) {
          const found = await logits(model, ids ?? [], overlay);
          expect(maxDifference(found, await golden.floats(tensor)), tensor).toBeLessThan(1e-4 * slack);
        }
      });

      it("gives the three terms, every gradient and ten steps of AdamW", async () => {
        flagged = await loadRedFlag(model, join(folder, "adapter"));
        const { parameters } = flagged.adapter ?? {};
        if (!parameters) throw new Error("no adapter");
        const [x = [], y = [], b = [], z = []] = await Promise.all(["x", "y", "b", "z"].map(golden.integers));
        const batch = {
          harmful: [{ prompt: x, response: y, onset: facts.k, insertAt: facts.i }],
          benign: [{ prompt: b, response: z }],
        };
        const loss = redFlagLoss(flagged, { ...facts.alpha, reduction: "mean", klDirection: "forward" });
        const sums = redFlagLoss(flagged, { ...facts.alpha, reduction: "sum", klDirection: "forward" });
        const { curve, ...options } = adamwOf(facts);
        const optimiser = new AdamW(parameters, options);
        const arena = new Arena(backend);

        const total = await sums(new Tape(arena), batch, 1)();
        for (const term of ["ce", "post", "benign"] as const) {
          expect(Math.abs((total.terms[term] ?? 0) / facts[`${term}_sum`] - 1), term).toBeLessThan(
            1e-4 * slack,
          );
        }

        for (const [step, expected] of curve.entries()) {
          arena.reset();
          const tape = new Tape(arena);
          const read = loss(tape, batch, 1);
          tape.backward();
          const report = await read();
          const { ce, post, benign } = report.terms;
          expect(
            maxDifference([report.loss, ce ?? 0, post ?? 0, benign ?? 0], expected),
            `step ${step}`,
          ).toBeLessThan(1e-3 * slack);
          if (step === 0) await expectGradients(flagged, optimiser, golden, 1e-3 * slack);
          optimiser.step(new Tape(arena, false), options.lr);
        }
        optimiser.dispose();
        arena.dispose();
      });
    });

    it("writes an adapter with the files, keys and shapes of PEFT's", async () => {
      const [backendCase] = BACKENDS;
      const backend = await backendCase?.create();
      if (!backend) throw new Error("no backend");
      const model = await loadModel(join(folder, "base"), { backend });
      const target = await mkdtemp(join(tmpdir(), "oriflamme-"));
      try {
        await saveRedFlag(await loadRedFlag(model, join(folder, "adapter")), target);
        const read = async (root: string) => ({
          config: JSON.parse(await readFile(join(root, "adapter_config.json"), "utf8")) as Record<
            string,
            unknown
          >,
          tensors: await readGolden(join(root, "adapter_model.safetensors")),
        });
        const [ours, theirs] = [await read(target), await read(join(folder, "adapter"))];
        expect(Object.keys(ours.config)).toEqual(expect.arrayContaining(Object.keys(theirs.config)));
        expect(ours.tensors.names.sort()).toEqual(theirs.tensors.names.sort());
        for (const tensor of theirs.tensors.names) {
          expect(await ours.tensors.floats(tensor), tensor).toEqual(await theirs.tensors.floats(tensor));
        }
        await Promise.all([ours.tensors.close(), theirs.tensors.close()]);
      } finally {
        await rm(target, { recursive: true });
        backend.dispose();
      }
    });
  });
});

interface Facts {
  readonly k: number;
  readonly i: number;
  readonly rf_id: number;
  readonly alpha: { readonly ce: number; readonly post: number; readonly benign: number };
  readonly ce_sum: number;
  readonly post_sum: number;
  readonly benign_sum: number;
  readonly adamw: Readonly<Record<string, unknown>>;
}

function adamwOf({ adamw }: Facts) {
  const [beta1 = 0, beta2 = 0] = adamw.betas as number[];
  const curve = adamw["curve [loss, ce_mean, post_mean, benign_mean] before each step"] as number[][];
  return {
    beta1,
    beta2,
    curve,
    lr: Number(adamw.lr),
    eps: Number(adamw.eps),
    weightDecay: Number(adamw.weight_decay),
  };
}

async function logits(model: Model, ids: readonly number[], overlay: Overlay): Promise<Float32Array> {
  const arena = new Arena(model.backend);
  const tape = new Tape(arena, false);
  const values = await head(tape, model, forward(tape, model, ids, { overlay }), overlay).read();
  arena.dispose();
  return values;
}

async function expectGradients(
  flagged: FlaggedModel,
  optimiser: AdamW,
  golden: Awaited<ReturnType<typeof readGolden>>,
  tolerance: number,
): Promise<void> {
  const { config } = flagged.model;
  let seen = 0;
  for (const [name, gradient] of optimiser.gradients.entries()) {
    const layer = name.slice(0, name.lastIndexOf("."));
    const names = name.startsWith("rows.") ? rowNames(config) : loraNames(config, layer);
    const theirs = names[name.slice(name.lastIndexOf(".") + 1) as keyof typeof names] as string;
    const key = golden.names.find(
      (key) => key.startsWith("grad.") && key.replace(".default", "") === `grad.${theirs}`,
    );
    if (!key) throw new Error(`no golden gradient for ${name} (${theirs})`);
    expect(relativeDifference(await gradient.read(), await golden.floats(key)), key).toBeLessThan(tolerance);
    seen++;
  }
  expect(seen).toBe(golden.names.filter((key) => key.startsWith("grad.")).length);
}
