import type { Parameters, Tensor } from "../tensor.js";
import { decodePiece, type Piece, pieces, type StoredWeight } from "./stored-weight.js";

/** How far loading has come, in bytes as the file has them. */
export interface LoadProgress {
  readonly loaded: number;
  readonly total: number;
}

/** Pieces under way at once: while one is checked, or decoded, the next is read. */
const IN_FLIGHT = 2;

/** Rows of a weight that come next. */
interface Job {
  readonly name: string;
  readonly weight: StoredWeight;
  readonly piece: Piece;
  /** Where they go. */
  readonly rows: Tensor;
}

/**
 * Copies weights from where they are kept into tensors, piece by piece: as they are where both have one type, and
 * straight into memory that the host can reach; else decoded, and encoded as what the tensor stores.
 * @throws RangeError for a weight that its tensor's type cannot hold; what `StoredWeight.read` throws. Nothing is
 * being read any more then, so the tensors' memory may be given back.
 */
export async function fillWeights(
  tensors: Parameters,
  weightOf: (name: string) => StoredWeight,
  onProgress?: (progress: LoadProgress) => void,
): Promise<void> {
  const weights = [...tensors.entries()].map(([name, tensor]) => ({ name, tensor, weight: weightOf(name) }));
  function* jobs(): Generator<Job> {
    for (const { name, tensor, weight } of weights) {
      for (const piece of pieces(weight)) {
        yield { name, weight, piece, rows: tensor.rowBlock(piece.first, piece.rows) };
      }
    }
  }
  let total = 0;
  for (const { weight } of weights) for (const { byteLength } of pieces(weight)) total += byteLength;
  let loaded = 0;
  const queue = jobs();
  const lane = async () => {
    const staging = new Staging();
    // Lanes draw from one queue, which ends for all of them where one fails.
    for (const job of queue) {
      await fillRows(job, staging);
      loaded += job.piece.byteLength;
      onProgress?.({ loaded, total });
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: IN_FLIGHT }, lane));
  for (const result of lanes) if (result.status === "rejected") throw result.reason;
}

async function fillRows(job: Job, staging: Staging): Promise<void> {
  const { name, weight, piece, rows } = job;
  const { first, rows: count, byteLength } = piece;
  const view = weight.dtype === rows.dtype ? rows.backend.view?.(rows) : undefined;
  if (view) {
    try {
      return await weight.read(first, count, view);
    } catch (error) {
      // Memory that is not shared leaves its views behind when it grows, as another task may have had it do meanwhile.
      if (view.length === byteLength) throw error;
      return fillRows(job, staging);
    }
  }
  const bytes = staging.take(byteLength);
  await weight.read(first, count, bytes);
  if (weight.dtype === rows.dtype) return rows.writeBytes(bytes);
  try {
    rows.write(decodePiece(weight.dtype, bytes));
  } catch (cause) {
    throw new RangeError(`weight '${name}': ${(cause as Error).message}`, { cause });
  }
}

/** Memory for one piece after the other. */
class Staging {
  #bytes = new Uint8Array();

  take(length: number): Uint8Array<ArrayBuffer> {
    if (this.#bytes.length < length) this.#bytes = new Uint8Array(length);
    return this.#bytes.subarray(0, length);
  }
}
