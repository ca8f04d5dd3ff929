import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { cases } from "./cases.js";
import { check, execute, firstDifferentValue, type Report } from "./harness.js";
import { declaredKernels } from "./kernels.js";
import { RecordingBackend, SplitBackend } from "./split.js";

/** What differs between backends. */
export interface SuiteOptions {
  /** Factor of all tolerances. */
  readonly slack?: number;
}

/** Defines the tests of all ops on one backend. A backend that cannot be had fails every one of them. */
export function describeOps(
  label: string,
  create: () => Promise<Backend>,
  { slack = 1 }: SuiteOptions = {},
): void {
  describe(label, () => {
    let backend: RecordingBackend;
    const reports: Record<string, Report> = {};

    beforeAll(async () => {
      backend = new RecordingBackend(await create());
    });

    afterAll(() => {
      backend?.dispose();
      if (process.env.ORIFLAMME_TOLERANCES) process.stderr.write(tabulate(label, reports));
    });

    for (const [op, list] of Object.entries(cases)) {
      describe(op, () => {
        for (const opCase of list) {
          if (opCase.wasmOnly && label.startsWith("webgpu")) continue;
          it(opCase.name, async () => {
            reports[`${op}: ${opCase.name}`] = await check(backend, opCase, slack);
          });
        }
      });
    }

    it("every declared kernel was run", async () => {
      const names = (await declaredKernels()).map((kernel) => kernel.name);
      expect([...backend.dispatched].sort()).toEqual(names);
    });
  });
}

/** Defines the tests that wasm kernels give the same bits however their range is cut. */
export function describeSplits(label: string, create: () => Promise<Backend>): void {
  describe(`${label}: the same bits from uneven pieces of the range`, () => {
    let whole: Backend;
    let split: Backend;

    beforeAll(async () => {
      whole = await create();
      split = new SplitBackend(whole);
    });

    for (const [op, list] of Object.entries(cases)) {
      it(op, async () => {
        for (const opCase of list) {
          const [a, b] = [await execute(whole, opCase), await execute(split, opCase)];
          const at = firstDifferentValue(a.snapshot.all, b.snapshot.all);
          expect(at, `${opCase.name}: first word of the arena that differs`).toBe(-1);
        }
      });
    }
  });
}

/** The largest errors in multiples of what is allowed: `ORIFLAMME_TOLERANCES=1 npx vitest run test/ops`. */
function tabulate(label: string, reports: Readonly<Record<string, Report>>): string {
  const lines = Object.entries(reports).map(
    ([name, { forward, gradient }]) => `${forward.toFixed(3)}\t${gradient.toFixed(3)}\t${label}\t${name}\n`,
  );
  return lines.join("");
}
