import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { Tape } from "../../src/tape.js";
import { Arena } from "../../src/tensor.js";
import { BACKENDS } from "../backends.js";
import { sharedMissing, sharedPath } from "../shared.js";
import { readOnnxCases } from "./onnx-files.js";
import { ONNX_OPS } from "./onnx-ops.js";

const FOLDER = ["data", "vectors", "onnx"];
const missing = sharedMissing(...FOLDER);
const folders = missing
  ? []
  : (await readdir(sharedPath(...FOLDER), { withFileTypes: true }))
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);

/** Folders whose operator no op of ours computes, and why. */
const NOT_OURS: Readonly<Record<string, string>> = {};

/**
 * What a result may err by: `relative` of the expected value and `absolute` for what cancels. The vectors were
 * computed in f32 themselves, so both sides round: a product of 4 numbers, an exponential or the tanh of a GELU err by
 * a few steps of 6e-8. What is only moved or decoded is exact.
 */
const TOLERANCE = { relative: 2e-6, absolute: 2e-6 };
const EXACT = { relative: 0, absolute: 0 };
const TOLERANCES: Readonly<Record<string, typeof TOLERANCE>> = { Gather: EXACT, Cast: EXACT };

describe.skipIf(missing)("ONNX's conformance vectors", () => {
  it("each have an op here, or a reason for having none", async () => {
    const unknown = [];
    for (const folder of folders) {
      const [first] = await readOnnxCases(sharedPath(...FOLDER, folder));
      if (!first || !(first.op in ONNX_OPS || folder in NOT_OURS)) unknown.push(`${folder}: ${first?.op}`);
    }
    expect(folders).not.toEqual([]);
    expect(unknown).toEqual([]);
  });

  describe.each(BACKENDS)("on $name", ({ create, slack }) => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await create();
    });
    afterAll(() => backend.dispose());

    it.each(folders.filter((folder) => !(folder in NOT_OURS)))("%s", async (folder) => {
      const cases = await readOnnxCases(sharedPath(...FOLDER, folder));
      expect(cases).not.toEqual([]);
      const arena = new Arena(backend);
      for (const each of cases) {
        const found = await ONNX_OPS[each.op]?.(new Tape(arena, false), each);
        const expected = each.outputs[0]?.values;
        const { relative, absolute } = TOLERANCES[each.op] ?? TOLERANCE;
        expect(found).toHaveLength(expected?.length ?? 0);
        for (const [i, value] of (expected ?? []).entries()) {
          if (!Number.isFinite(value)) {
            expect(found?.[i], `value ${i}`).toBe(value);
            continue;
          }
          const most = slack * (relative * Math.abs(value) + absolute);
          expect(Math.abs((found?.[i] as number) - value), `value ${i}`).toBeLessThanOrEqual(most);
        }
      }
      arena.dispose();
    });
  });
});
