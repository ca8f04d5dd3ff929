import { adamwKernel } from "../ops/adamw.js";
import { squaredNorm } from "../ops/squared-norm.js";
import type { Tape } from "../tape.js";
import { fill } from "../tape.js";
import { Parameters } from "../tensor.js";

/** Constants of AdamW, with PyTorch's defaults but for the decay, which is 0. */
export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
}

/**
 * AdamW (Loshchilov and Hutter 2019) on one block of parameters. It gives every parameter a gradient, and holds
 * the two moments; each of the three is a block like that of the parameters.
 */
export class AdamW {
  readonly gradients: Parameters;
  readonly #m: Parameters;
  readonly #v: Parameters;
  readonly #options: Required<AdamWOptions>;
  /** Steps taken. A checkpoint sets them. */
  steps = 0;

  /** @throws TypeError where a parameter is stored as anything but f32: it could not take small steps */
  constructor(
    readonly parameters: Parameters,
    options: AdamWOptions = {},
  ) {
    for (const [name, { dtype }] of parameters.entries()) {
      if (dtype !== "f32")
        throw new TypeError(`AdamW: parameter '${name}' is stored as ${dtype}, expected f32`);
    }
    this.#options = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, ...options };
    const { backend, shapes } = parameters;
    this.gradients = new Parameters(backend, shapes, { use: "gradients" });
    this.#m = new Parameters(backend, shapes, { use: "moments" });
    this.#v = new Parameters(backend, shapes, { use: "moments" });
    for (const [name, parameter] of parameters.entries()) {
      parameter.requiresGrad = true;
      parameter.grad = this.gradients.get(name);
    }
  }

  /** The Euclidean norm of all gradients together. */
  async gradientNorm(tape: Tape): Promise<number> {
    const partials = await squaredNorm(tape, this.gradients.all).read();
    return Math.sqrt(partials.reduce((sum, partial) => sum + partial, 0));
  }

  /**
   * Moves the parameters against the gradients, and sets these to 0.
   * @param gradientScale factor of the gradients, as clipping wants it
   */
  step(tape: Tape, lr: number, gradientScale = 1): void {
    const { beta1, beta2, eps, weightDecay } = this.#options;
    this.steps++;
    const gradients = this.gradients.all;
    tape.run(adamwKernel, {
      param: this.parameters.all,
      m: this.#m.all,
      v: this.#v.all,
      grad: gradients,
      n: gradients.size,
      lr,
      beta1,
      rest1: 1 - beta1,
      beta2,
      rest2: 1 - beta2,
      eps,
      weight_decay: weightDecay,
      correction1: 1 - beta1 ** this.steps,
      correction2: 1 - beta2 ** this.steps,
      grad_scale: gradientScale,
    });
    tape.run(fill, { out: gradients, n: gradients.size, value: 0 });
  }

  /** The moments, for a checkpoint. */
  get moments(): { m: Parameters; v: Parameters } {
    return { m: this.#m, v: this.#v };
  }

  /** Lets the gradients and moments go; the parameters stay, without gradients. */
  dispose(): void {
    for (const [, parameter] of this.parameters.entries()) {
      parameter.requiresGrad = false;
      parameter.grad = undefined;
    }
    for (const block of [this.gradients, this.#m, this.#v]) block.dispose();
  }
}
