import { adamwKernel } from "../ops/adamw.js";
import { squaredNorms } from "../ops/squared-norm.js";
import type { Tape } from "../tape.js";
import { fill } from "../tape.js";
import { Parameters, type Tensor } from "../tensor.js";

/** Constants of AdamW, with PyTorch's defaults but for the decay, which is 0. */
export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
}

/**
 * AdamW (Loshchilov and Hutter 2019). It gives every parameter a gradient, and holds the two moments; each of the three
 * lies in blocks like those of the parameters, and in the same memories.
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
    const backendOf = (name: string) => parameters.get(name).backend;
    this.gradients = new Parameters(backend, shapes, { use: "gradients", backendOf });
    this.#m = new Parameters(backend, shapes, { use: "moments", backendOf });
    this.#v = new Parameters(backend, shapes, { use: "moments", backendOf });
    for (const [name, parameter] of parameters.entries()) {
      parameter.requiresGrad = true;
      parameter.grad = this.gradients.get(name);
    }
  }

  /**
   * The Euclidean norm of all gradients together: the tensors' own are added up in the order of `parameters`, so that
   * it is the same bits wherever they lie.
   */
  async gradientNorm(tape: Tape): Promise<number> {
    const found = new Map<string, number>();
    for (const backend of new Set(this.gradients.blocks.map((block) => block.backend))) {
      const own = [...this.gradients.entries()].filter(([, gradient]) => gradient.backend === backend);
      const tensors = own.map(([, gradient]) => gradient);
      const squares = await tape.on(backend, () => squaredNorms(tape, tensors));
      own.forEach(([name], i) => void found.set(name, squares[i] as number));
    }
    let sum = 0;
    for (const name of this.parameters.shapes.keys()) sum += found.get(name) as number;
    return Math.sqrt(sum);
  }

  /**
   * Moves the parameters against the gradients, and sets these to 0.
   * @param gradientScale factor of the gradients, as clipping wants it
   */
  step(tape: Tape, lr: number, gradientScale = 1): void {
    const { beta1, beta2, eps, weightDecay } = this.#options;
    this.steps++;
    const rates = {
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
    };
    this.parameters.blocks.forEach((param, i) => {
      const m = this.#m.blocks[i] as Tensor;
      const v = this.#v.blocks[i] as Tensor;
      const grad = this.gradients.blocks[i] as Tensor;
      tape.on(param.backend, () => {
        tape.run(adamwKernel, { param, m, v, grad, n: grad.size, ...rates });
        tape.run(fill, { out: grad, n: grad.size, value: 0 });
      });
    });
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
