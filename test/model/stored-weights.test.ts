import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend } from "../../src/backend.js";
import { decode as decodeBytes, encode, isStorage, type WeightType } from "../../src/dtype.js";
import { writeHuggingFace } from "../../src/formats/hf-write.js";
import { loadModel } from "../../src/formats/load-model.js";
import { Adapter } from "../../src/model/adapter.js";
import { linearLayers, type ModelConfig, weightShapes, weightTypes } from "../../src/model/config.js";
import { forward, head } from "../../src/model/forward.js";
import { initialise } from "../../src/model/init.js";
import { Model } from "../../src/model/model.js";
import { crossEntropy } from "../../src/ops/cross-entropy.js";
import { linear } from "../../src/ops/matmul.js";
import { Random } from "../../src/random.js";
import { Tape } from "../../src/tape.js";
import { Arena, Parameters } from "../../src/tensor.js";
import { AdamW } from "../../src/train/optimiser.js";
import { BACKENDS } from "../backends.js";
import { readerOf, rejection, someWeights, temporaryFolder } from "../formats/helpers.js";
import { maxDifference, relativeDifference } from "../golden.js";
import { baseline, gpt2, llama, logitsOf, loudModel, mistral, randomIds } from "./tiny.js";

/** Rows of whole blocks, but for `down`. */
const blocky: ModelConfig = { ...llama, hiddenSize: 32, headDim: 8, intermediateSize: 40 };
const TYPES = ["f16", "bf16", "q8_0", "q4_0"] as const;

async function storedModel(backend: Backend, config: ModelConfig, dtype: WeightType): Promise<Model> {
  const loud = await loudModel(backend, config);
  const model = await Model.fromValues(backend, config, null, (name) => loud.weight(name).read(), dtype);
  loud.dispose();
  return model;
}

describe("what weights are stored as", () => {
  it("is told by name: matrices of linear layers, embedding and head", () => {
    expect(Object.fromEntries(weightTypes({ ...mistral, layers: 1 }, "bf16"))).toEqual({
      "embed.weight": "bf16",
      "head.weight": "bf16",
      ...Object.fromEntries(
        ["q", "k", "v", "output", "gate", "up", "down"].map((part) => [`layers.0.${part}.weight`, "bf16"]),
      ),
    });
    expect([...weightTypes(gpt2, "q8_0").keys()]).not.toContain("positions.weight");
  });

  it("is f16 where the rows are not whole blocks", () => {
    const types = weightTypes(blocky, "q4_0");
    expect(types.get("layers.0.up.weight")).toBe("q4_0");
    expect(types.get("layers.0.down.weight")).toBe("f16");
    expect(weightTypes(blocky, "f16").get("layers.0.down.weight")).toBe("f16");
  });
});

describe("a model", () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await baseline();
  });

  it.each(TYPES)("loads as %s, tensor by tensor", async (dtype) => {
    const folder = `${await temporaryFolder()}/m`;
    const weights = someWeights(blocky);
    await writeHuggingFace(folder, blocky, readerOf(weights));
    const model = await loadModel(folder, { backend, dtype });
    const types = weightTypes(blocky, dtype);
    for (const [name, tensor] of model.weights.entries()) {
      const values = weights.get(name) ?? new Float32Array();
      expect(tensor.dtype, name).toBe(types.get(name) ?? "f32");
      const expected = isStorage(tensor.dtype)
        ? decodeBytes(tensor.dtype, encode(tensor.dtype, values))
        : values;
      expect(await tensor.read(), name).toEqual(expected);
    }
    // The bytes are the types', not f32's.
    const f32 = [...weightShapes(blocky).values()].reduce((sum, [a = 1, b = 1]) => sum + 4 * a * b, 0);
    expect(model.weights.all.byteLength).toBeLessThan(0.75 * f32);
    model.dispose();
  });

  it("refuses an unknown type, and names a weight that has no room", async () => {
    const folder = `${await temporaryFolder()}/m`;
    const weights = someWeights(blocky);
    weights.get("layers.1.up.weight")?.set([1e6], 3);
    await writeHuggingFace(folder, blocky, readerOf(weights));
    const unknown = loadModel(folder, { backend, dtype: "q5_1" as WeightType });
    expect((await rejection(unknown)).message).toBe(
      "dtype must be stored, f32, f16, bf16, q8_0, q4_0, got 'q5_1'",
    );
    const before = backend.memory().used;
    const error = await rejection(loadModel(folder, { backend, dtype: "f16" }));
    expect(error).toBeInstanceOf(RangeError);
    expect(error.message).toBe("weight 'layers.1.up.weight': f16 cannot hold 1000000, at index 3");
    expect(backend.memory().used).toBe(before);
  });

  it("of fresh weights rounds those of f32", async () => {
    const [plain, stored] = (["f32", "q8_0"] as const).map((dtype) =>
      initialise(backend, blocky, null, new Random(3), dtype),
    ) as [Model, Model];
    const values = await plain.weight("embed.weight").read();
    expect(await stored.weight("embed.weight").read()).toEqual(decodeBytes("q8_0", encode("q8_0", values)));
    plain.dispose();
    stored.dispose();
  });

  it("is not trained itself", async () => {
    const model = await storedModel(backend, blocky, "q8_0");
    expect(() => new AdamW(model.weights)).toThrow(
      "AdamW: parameter 'embed.weight' is stored as q8_0, expected f32",
    );
    const tape = new Tape(new Arena(backend));
    const weight = model.weight("layers.0.up.weight");
    weight.requiresGrad = true;
    const x = tape.filled([2, 32], 1);
    expect(() => linear(tape, x, weight)).toThrow("linear: weight is stored as q8_0 and cannot be trained");
    expect(() => linear(tape, tape.filled([2, 64], 1), model.weight("layers.0.q.weight"))).toThrow(
      "linear: weight has shape (32, 32), expected (32, 64)",
    );
    model.dispose();
  });
});

it("parameters refuse rows that are not whole blocks", async () => {
  const shapes = new Map([["w", [4, 40]]]);
  const make = async () => new Parameters(await baseline(), shapes, { dtypes: new Map([["w", "q4_0"]]) });
  expect((await rejection(make())).message).toBe("q4_0 wants rows of a multiple of 32, got 40");
});

describe.each(BACKENDS)("stored weights on $name", ({ create, slack }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(() => backend?.dispose());

  /** The same values as f32. */
  async function plainTwin(model: Model): Promise<Model> {
    return Model.fromValues(backend, model.config, null, (name) => model.weight(name).read());
  }

  it.each(TYPES)("%s: the logits of many rows are those of the same values in f32", async (dtype) => {
    const stored = await storedModel(backend, blocky, dtype);
    const plain = await plainTwin(stored);
    const ids = randomIds(12, blocky.vocabSize);
    const difference = maxDifference(await logitsOf(stored, ids), await logitsOf(plain, ids));
    expect(difference).toBeLessThan(1e-4 * slack);
    stored.dispose();
    plain.dispose();
  });

  it.each(TYPES)("%s: an adapter over it has the gradients of one over the same values", async (dtype) => {
    const stored = await storedModel(backend, blocky, dtype);
    const plain = await plainTwin(stored);
    const ids = Uint32Array.from(randomIds(12, blocky.vocabSize));
    const gradientsOver = async (model: Model) => {
      const random = new Random(5);
      const input = Float32Array.from({ length: 32 }, () => random.normal());
      const targets = linearLayers(blocky);
      const adapter = new Adapter(
        model,
        { rank: 2, alpha: 4, targets },
        { ids: [3], input, output: input },
        random,
      );
      for (const name of targets) {
        const b = adapter.lora(name)?.b;
        b?.write(Float32Array.from({ length: b.size }, () => 0.3 * random.normal()));
      }
      const optimiser = new AdamW(adapter.parameters);
      const arena = new Arena(backend);
      const tape = new Tape(arena);
      const options = { overlay: adapter };
      const logits = head(tape, model, forward(tape, model, ids, options), adapter);
      const weights = tape.from(new Float32Array(ids.length).fill(1 / ids.length));
      crossEntropy(tape, logits, tape.from(ids), { weights });
      tape.backward();
      const found = new Map<string, Float32Array>();
      for (const [name, gradient] of optimiser.gradients.entries()) found.set(name, await gradient.read());
      optimiser.dispose();
      adapter.dispose();
      arena.dispose();
      return found;
    };
    const found = await gradientsOver(stored);
    for (const [name, expected] of await gradientsOver(plain)) {
      expect(relativeDifference(found.get(name) ?? [], expected), name).toBeLessThan(1e-4 * slack);
    }
    stored.dispose();
    plain.dispose();
  });

  it.each(TYPES)("%s: the logits of few rows are near, as far as 8 bits of x allow", async (dtype) => {
    const stored = await storedModel(backend, blocky, dtype);
    const plain = await plainTwin(stored);
    const ids = randomIds(5, blocky.vocabSize);
    const expected = await logitsOf(plain, ids);
    const found = await logitsOf(stored, ids);
    const norm = (values: ArrayLike<number>) => Math.hypot(...Array.from(values));
    const distance = norm(found.map((value, i) => value - (expected[i] as number)));
    // A product errs by about a part in 200 (normal x in steps of max|x| / 127), of which ten or so add up, and this
    // model's large weights make more of it; other logits are further away than they are long.
    expect(distance).toBeLessThan(0.1 * norm(expected));
    stored.dispose();
    plain.dispose();
  });
});
