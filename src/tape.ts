import type { Backend } from "./backend.js";
import type { DType } from "./dtype.js";
import type { Kernel, KernelArgs } from "./kernel.js";
import { kernel, linearGrid } from "./kernel.js";
import { type Arena, formatShape, type Tensor } from "./tensor.js";

/** Sets n values: the zero that a gradient starts from. */
export const fill = kernel({
  name: "fill",
  writes: ["out"],
  reads: [],
  dims: ["n"],
  scalars: ["value"],
  range: ({ n }) => n,
  grid: ({ n }) => linearGrid(Math.ceil(n / 256)),
});

/** One recorded step: how a gradient of its output becomes gradients of its inputs. */
interface Entry {
  /** In whose memory it happens. */
  readonly backend: Backend;
  readonly output: Tensor;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly backward: () => void;
}

/** How a tape records. */
export interface TapeOptions {
  /**
   * Keep of a block its input and result only, and run it again in its backward (Chen et al. 2016): less memory
   * for a second forward pass, and the same bits.
   */
  readonly checkpoint?: boolean;
}

/** A run of a block's body. */
interface Recorded {
  readonly output: Tensor;
  readonly entries: Entry[];
  /** What the body reads and the gradient goes on to, besides its own results. */
  readonly leaves: ReadonlySet<Tensor>;
}

/**
 * Records what must be undone. Ops take the tape first, put their results into its arena, and record a closure
 * that adds to the gradients of their inputs. `backward` runs the closures in reverse.
 */
export class Tape {
  #entries: Entry[] = [];
  /** Memory of a block's last gradient that nothing reads any more. */
  #spare: Tensor | undefined;
  #backend: Backend;

  /**
   * @param arena where activations and their gradients live
   * @param recording false for inference: nothing is saved, and `block` frees what its function left behind
   */
  constructor(
    readonly arena: Arena,
    readonly recording = true,
    readonly options: TapeOptions = {},
  ) {
    this.#backend = arena.backend;
  }

  /** In whose memory the next op happens: its operands must lie there. */
  get backend(): Backend {
    return this.#backend;
  }

  /**
   * Has ops happen in the memory of another backend while `body` runs, which must not wait for anything; their backward
   * happens there too.
   */
  on<T>(backend: Backend, body: () => T): T {
    const before = this.#backend;
    this.#backend = backend;
    try {
      return body();
    } finally {
      this.#backend = before;
    }
  }

  /** An uninitialised activation. */
  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    return this.arena.tensor(shape, dtype, this.#backend);
  }

  /** An activation filled with `value`. */
  filled(shape: readonly number[], value: number): Tensor {
    const tensor = this.empty(shape);
    this.run(fill, { out: tensor, n: tensor.size, value });
    return tensor;
  }

  /** Host values as an activation; the element type follows the array's. */
  from(data: Float32Array | Uint32Array, shape: readonly number[] = [data.length]): Tensor {
    const tensor = this.empty(shape, data instanceof Uint32Array ? "u32" : "f32");
    tensor.write(data);
    return tensor;
  }

  run<K extends Kernel<string, string, string, string>>(kernel: K, args: KernelArgs<K>): void {
    this.#backend.dispatch(kernel, args);
  }

  /** The tensor's gradient, zeros where there was none. */
  grad(tensor: Tensor): Tensor {
    tensor.grad ??= this.filled(tensor.shape, 0);
    return tensor.grad;
  }

  /**
   * Notes how `output` came about. Where no input requires a gradient, or the tape is not recording, nothing is
   * kept.
   * @param backward adds to the gradients of those inputs that require one; called only if `output` has one
   */
  record(output: Tensor, inputs: readonly (Tensor | undefined)[], backward: () => void): Tensor {
    if (this.recording && inputs.some((input) => input?.requiresGrad)) {
      output.requiresGrad = true;
      this.#entries.push({ backend: this.#backend, output, inputs, backward });
    }
    return output;
  }

  /**
   * Runs a part of the network whose only way in is `input` and whose only way out is its result, of the same
   * shape, so that memory can be given back early: while recording, the gradients inside the block after its
   * backward, and that of its result to the next block; with `checkpoint` also all that lies inside; else all that
   * the block left behind, as its result takes the place of `input`, which must not be used again.
   * @param body with `checkpoint` it is run twice, and must do the same both times
   */
  block(input: Tensor, body: (input: Tensor) => Tensor): Tensor {
    if (!this.recording) return this.#keepResult(input, body);
    if (this.options.checkpoint) return this.#checkpoint(input, body);
    const { output, entries, leaves } = this.#recordBody(input, body);
    return this.record(output, [output], () => {
      this.#openGradients(input, leaves);
      const mark = this.arena.mark();
      this.#unwind(entries);
      this.arena.release(mark);
      this.#spare = output === input ? undefined : output.grad;
    });
  }

  /** Records the block only to know what its gradient goes on to, and again in the backward. */
  #checkpoint(input: Tensor, body: (input: Tensor) => Tensor): Tensor {
    const output = this.empty(input.shape);
    const mark = this.arena.mark();
    const first = this.#recordBody(input, body);
    expectInputsShape(input, first.output);
    if (first.output !== input) this.#backend.copy(output, first.output);
    this.arena.release(mark);
    if (first.output === input) return input;
    const { leaves } = first;
    return this.record(output, [first.output], () => {
      this.#openGradients(input, leaves);
      const mark = this.arena.mark();
      const again = this.#recordBody(input, body);
      again.output.grad = output.grad?.reshape(again.output.shape);
      this.#unwind(again.entries);
      this.arena.release(mark);
      this.#spare = output.grad;
    });
  }

  /** Runs the body, its entries apart from those of the tape. */
  #recordBody(input: Tensor, body: (input: Tensor) => Tensor): Recorded {
    const outer = this.#entries;
    const entries: Entry[] = [];
    this.#entries = entries;
    const output = body(input);
    this.#entries = outer;
    const outputs = new Set(entries.map((entry) => entry.output));
    const leaves = new Set(
      entries.flatMap((entry) =>
        entry.inputs.flatMap((x) => (x?.requiresGrad && !outputs.has(x) ? [x] : [])),
      ),
    );
    return { output, entries, leaves };
  }

  /** Makes the gradients that outlive a block's backward: they must lie in front of what it gives back. */
  #openGradients(input: Tensor, leaves: ReadonlySet<Tensor>): void {
    const spare = this.#spare;
    const fits = spare?.size === input.size && spare.backend === input.backend;
    if (spare && fits && input.requiresGrad && !input.grad) {
      this.run(fill, { out: spare, n: spare.size, value: 0 });
      input.grad = spare.reshape(input.shape);
      this.#spare = undefined;
    }
    for (const leaf of leaves) this.grad(leaf);
  }

  /** Moves the block's result to where its input was. */
  #keepResult(input: Tensor, body: (input: Tensor) => Tensor): Tensor {
    const mark = this.arena.mark();
    const result = body(input);
    expectInputsShape(input, result);
    if (result !== input) this.#backend.copy(input, result);
    this.arena.release(mark);
    return input;
  }

  /** Runs every recorded step in reverse, from the gradients that were set, and forgets them. */
  backward(): void {
    const entries = this.#entries;
    this.#entries = [];
    this.#unwind(entries);
    this.#spare = undefined;
  }

  #unwind(entries: Entry[]): void {
    for (let entry = entries.pop(); entry; entry = entries.pop()) {
      if (entry.output.grad) this.on(entry.backend, entry.backward);
    }
  }
}

function expectInputsShape(input: Tensor, result: Tensor): void {
  if (result.size === input.size) return;
  throw new RangeError(
    `block: the result's shape ${formatShape(result.shape)} must be the input's, ${formatShape(input.shape)}`,
  );
}
