import { adamwKernel } from "../../src/ops/adamw.js";
import type { Tape } from "../../src/tape.js";
import type { Tensor } from "../../src/tensor.js";
import { type CaseOptions, frozen, type Nd, type OpCase, opCase } from "./case.js";

const HYPER = { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

interface Step {
  readonly step: number;
  readonly gradScale?: number;
  readonly gradSize?: number;
}

/** The algorithm of PyTorch's `AdamW`, with the scalars as the kernel gets them. */
function reference(x: Record<"param" | "m" | "v" | "grad", Nd>, { step, gradScale = 1 }: Step) {
  const { lr, beta1, beta2, eps, weight_decay } = HYPER;
  const grad = x.grad.map((g) => g * gradScale);
  const m = x.m.map((value, i) => beta1 * value + (1 - beta1) * grad.flat(i));
  const v = x.v.map((value, i) => beta2 * value + (1 - beta2) * grad.flat(i) ** 2);
  const param = x.param.map((value, i) => {
    const decayed = value - lr * weight_decay * value;
    const mHat = m.flat(i) / (1 - beta1 ** step);
    const vHat = v.flat(i) / (1 - beta2 ** step);
    return decayed - (lr * mHat) / (Math.sqrt(vHat) + eps);
  });
  return { param, m, v };
}

/** The kernel writes in place: these go to it instead of the inputs. */
function copied(tape: Tape, tensor: Tensor): Tensor {
  const copy = tape.empty(tensor.shape);
  tape.backend.copy(copy, tensor);
  return copy;
}

function adamwCase(n: number, step: Step, extra: CaseOptions = {}): OpCase {
  const { gradScale = 1, gradSize = 1 } = step;
  return opCase({
    name: `${n} values, step ${step.step}, gradients of ${gradSize} scaled by ${gradScale}`,
    inputs: (random) => ({
      param: frozen(random.normal([n])),
      m: frozen(random.normal([n], step.step > 1 ? 0.1 * gradSize : 0)),
      v: frozen(random.uniform([n], 0, step.step > 1 ? gradSize ** 2 : 0)),
      grad: frozen(random.normal([n], gradSize)),
    }),
    run: (tape, x) => {
      const [param, m, v] = [copied(tape, x.param), copied(tape, x.m), copied(tape, x.v)];
      const { beta1, beta2 } = HYPER;
      const corrections = { correction1: 1 - beta1 ** step.step, correction2: 1 - beta2 ** step.step };
      tape.run(adamwKernel, {
        param,
        m,
        v,
        grad: x.grad,
        n,
        ...HYPER,
        rest1: 1 - beta1,
        rest2: 1 - beta2,
        ...corrections,
        grad_scale: gradScale,
      });
      return { param, m, v };
    },
    reference: (x) => reference(x, step),
    // v rounds a few times, and the step takes it as a root.
    tolerance: { forward: { relative: 2e-6, absolute: 2e-6 } },
    ...extra,
  });
}

export const adamwCases = [
  ...[1, 3, 4, 7, 257].map((n) => adamwCase(n, { step: 1 })),
  adamwCase(65, { step: 100, gradScale: 0.25 }),
  // Where eps matters, and where v is subnormal or 0.
  adamwCase(33, { step: 3, gradSize: 1e-7 }),
  adamwCase(33, { step: 3, gradSize: 1e-16 }),
  adamwCase(33, { step: 3, gradSize: 0 }),
  adamwCase(33, { step: 3, gradSize: 1e15 }),
  adamwCase(1 << 20, { step: 2 }, { samples: 0, bench: { shape: [1 << 20], bytes: (1 << 20) * 28 } }),
];
