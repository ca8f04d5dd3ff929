import { FormatError } from "../errors.js";
import { openFiles } from "../formats/files.js";
import { decodeUtf8, Fields, isObject, parseObject } from "../formats/json.js";
import { openSafetensors, type SafetensorsFile } from "../formats/safetensors.js";
import { type TensorData, writeSafetensors } from "../formats/safetensors-write.js";
import { isFile, makeFolder, removeFiles, removeUnfinished, replaceFile } from "../formats/write.js";
import type { Parameters, Tensor } from "../tensor.js";
import type { BatchSource } from "./batches.js";
import { difference, type Fingerprint } from "./fingerprint.js";
import type { AdamW } from "./optimiser.js";
import type { TrainStep } from "./trainer.js";

/** Where a run keeps its state, and how often. */
export interface CheckpointOptions {
  /** Made where it is missing. `removeCheckpoint` clears it once the run's result is safe. */
  readonly folder: string;
  /** Steps between two checkpoints; 0 for none. */
  readonly every: number;
  /** Go on from what the folder holds, and begin where it holds nothing. Else it must hold nothing. */
  readonly resume: boolean;
  /** What a resumed run must share besides its data, model and settings: the engine's version, say. */
  readonly facts?: Fingerprint;
  /** Called before the first step, with the steps that were taken before. */
  readonly onRestore?: (steps: readonly TrainStep[]) => void;
}

const FILE = "state.safetensors";
const FORMAT = "oriflamme checkpoint 1";

/** Whether the folder holds a checkpoint. Node only. */
export function hasCheckpoint(folder: string): Promise<boolean> {
  return isFile(pathOf(folder));
}

/** Removes the checkpoint of a folder, and the folder if it is then empty. Node only. */
export function removeCheckpoint(folder: string): Promise<void> {
  return removeFiles(folder, [FILE]);
}

function pathOf(folder: string): string {
  return `${folder}/${FILE}`;
}

/**
 * The state of a run in one safetensors file, so that one rename replaces all of it: parameters and both moments
 * as tensors `parameters.*`, `m.*`, `v.*`; where the batches stand and the steps so far as JSON in the tensor
 * `state`; the fingerprint in the header. A run that goes on from it takes the steps that it would have taken,
 * bit by bit where the engine is deterministic. Node only.
 */
export class Checkpoint {
  #step = 0;
  #restored: readonly TrainStep[] = [];

  /**
   * @param fingerprint of the run's data, model and settings
   * @throws RangeError for a bad `every`
   */
  constructor(
    readonly options: CheckpointOptions,
    readonly fingerprint: Fingerprint,
  ) {
    const { every } = options;
    if (!Number.isInteger(every) || every < 0)
      throw new RangeError(`checkpoint.every must be an integer from 0, got ${every}`);
  }

  /** Steps after which the last checkpoint was written; 0 where there is none. */
  get step(): number {
    return this.#step;
  }

  /** The steps of the checkpoint that was gone on from. */
  get restored(): readonly TrainStep[] {
    return this.#restored;
  }

  /** Whether one is to be written after that many steps. */
  isDue(step: number): boolean {
    return step % this.options.every === 0;
  }

  /** Whether a run that ends after that many steps would lose some that a checkpoint could hold. */
  isBehind(step: number): boolean {
    return this.options.every > 0 && step > this.#step;
  }

  /**
   * Puts optimiser, parameters and batches where the checkpoint left them; does nothing where there is none.
   * @throws FormatError where there is one but `resume` is not set, where it is of another run (what differs is
   * named), and where the file is malformed
   */
  async restore(optimiser: AdamW, batches: BatchSource<unknown>): Promise<void> {
    const { folder, resume, onRestore } = this.options;
    if (await hasCheckpoint(folder)) {
      if (!resume) {
        const ways = "set resume (--resume) to go on from it, or remove the folder";
        throw new FormatError(folder, `holds a checkpoint: ${ways}`);
      }
      this.#restored = await this.#load(optimiser, batches);
      this.#step = this.#restored.length;
    }
    await removeUnfinished(folder, FILE);
    onRestore?.(this.#restored);
  }

  /** Replaces the checkpoint. A crash at any moment leaves the old one or the new one, whole. */
  async save(optimiser: AdamW, batches: BatchSource<unknown>, steps: readonly TrainStep[]): Promise<void> {
    const { folder } = this.options;
    const tensors = new Map<string, TensorData>();
    for (const [name, tensor] of tensorsOf(optimiser)) {
      tensors.set(name, { dtype: "F32", shape: tensor.shape, data: () => tensor.read() });
    }
    const state = new TextEncoder().encode(JSON.stringify({ batches: batches.state, steps }));
    tensors.set("state", { dtype: "U8", shape: [state.length], data: state });
    const metadata = {
      format: FORMAT,
      step: String(steps.length),
      fingerprint: JSON.stringify(this.#facts()),
    };
    await makeFolder(folder);
    await replaceFile(pathOf(folder), writeSafetensors(tensors, metadata));
    this.#step = steps.length;
  }

  async #load(optimiser: AdamW, batches: BatchSource<unknown>): Promise<TrainStep[]> {
    const path = pathOf(this.options.folder);
    const files = await openFiles(path);
    const source = await files.open(FILE);
    try {
      const file = await openSafetensors(source);
      this.#expectOurs(file);
      for (const [name, tensor] of tensorsOf(optimiser)) {
        const values = await file.read(name);
        if (values.length !== tensor.size) {
          throw new FormatError(
            path,
            `tensor '${name}' has ${values.length} values, expected ${tensor.size}`,
          );
        }
        tensor.write(values);
      }
      const state = parseObject(decodeUtf8(await file.readRaw("state"), path), path, "'state'");
      const fields = new Fields(path, state);
      const steps = fields.get("steps");
      if (!Array.isArray(steps) || !steps.every(isObject))
        return fields.fail("steps", "must be a list of steps");
      batches.state = state.batches;
      optimiser.steps = steps.length;
      return steps as unknown as TrainStep[];
    } finally {
      await source.close();
    }
  }

  #expectOurs({ name, metadata }: SafetensorsFile): void {
    if (metadata.format !== FORMAT) throw new FormatError(name, `is not an '${FORMAT}'`);
    const was = parseObject(metadata.fingerprint ?? "", name, "its fingerprint") as Fingerprint;
    const different = difference(was, this.#facts());
    if (different !== null) throw new FormatError(name, `is of another run: ${different}`);
  }

  #facts(): Fingerprint {
    return { ...this.options.facts, ...this.fingerprint };
  }
}

/** All that the optimiser moves, by the names in the file. */
function* tensorsOf({ parameters, moments }: AdamW): Generator<[string, Tensor]> {
  const blocks: Record<string, Parameters> = { parameters, ...moments };
  for (const [block, tensors] of Object.entries(blocks)) {
    for (const [name, tensor] of tensors.entries()) yield [`${block}.${name}`, tensor];
  }
}
