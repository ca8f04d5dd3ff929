import type { WeightType } from "../dtype.js";
import { weightShapes } from "../model/config.js";
import { encodedWeight } from "../model/encoded-weight.js";
import type { WeightSource } from "../model/merge.js";
import { readValues, type StoredWeight, weightOfValues } from "../model/stored-weight.js";
import type { SavedType } from "./hf-config.js";
import { toHuggingFaceName, transpose } from "./hf-names.js";
import { type TensorData, tensorBytes, writeSafetensors } from "./safetensors-write.js";
import type { FileContent } from "./write.js";

/** Bytes of tensors in a file, as transformers cuts models. */
const SHARD_BYTES = 5e9;

/** Whether a file is one of those that `weightFiles` makes. */
export function isWeightFile(name: string): boolean {
  return /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name);
}

export interface WeightFilesOptions {
  /**
   * The type of the tensors, or that of each by our name; as they are stored where nothing is said, f16 where
   * safetensors has not that type.
   */
  readonly dtype?: SavedType | ((name: string) => SavedType);
  /** Most bytes of tensors in a file: larger models become shards with an index. A tensor is never cut. */
  readonly shardBytes?: number;
  /** Called with the bytes written so far, and those of all tensors. */
  readonly onProgress?: (written: number, total: number) => void;
}

/**
 * The files of a model's weights: `model.safetensors`, or shards and `model.safetensors.index.json`. Weights are
 * read when they are written, piece by piece.
 */
export function weightFiles(
  { config, weight }: WeightSource,
  { dtype, shardBytes = SHARD_BYTES, onProgress }: WeightFilesOptions = {},
): Map<string, FileContent> {
  let written = 0;
  let total = 0;
  const tensors: [string, TensorData][] = [];
  for (const [ours, shape] of weightShapes(config)) {
    const { name, transpose: isTransposed } = toHuggingFaceName(config, ours);
    const stored = weight(ours);
    const source = isTransposed ? turned(stored) : stored;
    const type = typeof dtype === "function" ? dtype(ours) : (dtype ?? savedType(stored.dtype));
    const tensor: TensorData = {
      dtype: ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[type],
      shape: isTransposed ? [...shape].reverse() : shape,
      async *pieces() {
        try {
          for await (const bytes of encodedWeight(source, type)) {
            yield bytes;
            written += bytes.length;
            onProgress?.(written, total);
          }
        } catch (cause) {
          if (!(cause instanceof RangeError)) throw cause;
          throw new RangeError(`tensor '${name}': ${cause.message}`, { cause });
        }
      },
    };
    total += tensorBytes(tensor);
    tensors.push([name, tensor]);
  }
  return filesOf(shardsOf(tensors, shardBytes), total);
}

/** The type of safetensors that a stored weight is written as. */
export function savedType(stored: WeightType): SavedType {
  return stored === "f32" || stored === "bf16" ? stored : "f16";
}

/** The same as (in, out), read as a whole. */
function turned(weight: StoredWeight): StoredWeight {
  const [out = 1, input = 1] = weight.shape;
  return weightOfValues([input, out], async () => transpose(await readValues(weight), out, input));
}

/** Tensors in their order, as many together as fit. */
function shardsOf(tensors: readonly [string, TensorData][], most: number): Map<string, TensorData>[] {
  const shards: Map<string, TensorData>[] = [];
  let room = 0;
  for (const [name, tensor] of tensors) {
    const bytes = tensorBytes(tensor);
    if (shards.length === 0 || bytes > room) {
      shards.push(new Map());
      room = most;
    }
    shards.at(-1)?.set(name, tensor);
    room -= bytes;
  }
  return shards;
}

function filesOf(shards: readonly Map<string, TensorData>[], total: number): Map<string, FileContent> {
  const files = new Map<string, FileContent>();
  const metadata = { format: "pt" };
  const [only] = shards;
  if (shards.length === 1 && only) return files.set("model.safetensors", writeSafetensors(only, metadata));

  const map: Record<string, string> = {};
  const number = (i: number) => String(i).padStart(5, "0");
  for (const [i, shard] of shards.entries()) {
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    files.set(file, writeSafetensors(shard, metadata));
    for (const tensor of shard.keys()) map[tensor] = file;
  }
  const index = { metadata: { total_size: total }, weight_map: map };
  return files.set("model.safetensors.index.json", `${JSON.stringify(index, null, 2)}\n`);
}
