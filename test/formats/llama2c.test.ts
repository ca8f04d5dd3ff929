import { expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { openLlama2c } from "../../src/formats/llama2c.js";
import { halfSplit, interleaved } from "../../src/formats/rope-order.js";
import { bytesSource } from "../../src/formats/source.js";
import { type ModelConfig, weightShapes } from "../../src/model/config.js";
import { readValues } from "../../src/model/stored-weight.js";
import { rejection, someWeights, tinyLlama } from "./helpers.js";

const config: ModelConfig = { ...tinyLlama, eosIds: [1, 2] };

/** From half-split rows back to interleaved ones, written down the other way round than the reader's. */
function interleave(values: Float32Array, headDim: number, cols: number): Float32Array {
  const rows = values.length / cols;
  const order = Array.from({ length: rows }, (_, row) => {
    const [head, i] = [Math.floor(row / headDim), row % headDim];
    return head * headDim + (i % 2 === 0 ? i / 2 : headDim / 2 + (i - 1) / 2);
  });
  return Float32Array.from(order.flatMap((row) => [...values.subarray(row * cols, (row + 1) * cols)]));
}

function fileOf(of: ModelConfig): Uint8Array {
  const weights = someWeights(of);
  const vocab = of.tied ? of.vocabSize : -of.vocabSize;
  const header = [
    of.hiddenSize,
    of.intermediateSize,
    of.layers,
    of.heads,
    of.kvHeads,
    vocab,
    of.contextLength,
  ];
  const get = (name: string) => weights.get(name) ?? new Float32Array(0);
  const each = (part: string) =>
    Array.from({ length: of.layers }, (_, i) => get(`layers.${i}.${part}.weight`));
  const turned = (part: string) => each(part).map((values) => interleave(values, of.headDim, of.hiddenSize));
  const blocks = [
    get("embed.weight"),
    ...each("attention_norm"),
    ...turned("q"),
    ...turned("k"),
    ...each("v"),
    ...each("output"),
    ...each("mlp_norm"),
    ...each("gate"),
    ...each("down"),
    ...each("up"),
    get("norm.weight"),
    new Float32Array(of.contextLength * of.headDim).fill(Number.NaN),
    get("head.weight"),
  ];
  return Uint8Array.from(
    Buffer.concat([Int32Array.from(header), ...blocks].map((part) => Buffer.from(part.buffer))),
  );
}

test("rows 2i and 2i + 1 of a head move to i and i + half", () => {
  const rows = Float32Array.of(0, 1, 2, 3, 10, 11, 12, 13);
  expect([...halfSplit(Uint8Array.from(rows), 4, 1)]).toEqual([0, 2, 1, 3, 10, 12, 11, 13]);
  const back = halfSplit(new Uint8Array(interleave(rows, 4, 2).buffer), 4, 8);
  expect([...new Float32Array(back.buffer)]).toEqual([...rows]);
});

test("and back again", () => {
  expect([...interleaved(Uint8Array.of(0, 1, 2, 3, 10, 11, 12, 13), 4, 1)]).toEqual([
    0, 2, 1, 3, 10, 12, 11, 13,
  ]);
  // In a head of six, unlike one of four, one order is not the other's reverse.
  expect([...interleaved(Uint8Array.of(0, 1, 2, 3, 4, 5), 6, 1)]).toEqual([0, 3, 1, 4, 2, 5]);
  const rows = Uint8Array.from({ length: 24 }, (_, i) => i);
  expect(halfSplit(interleaved(rows, 6, 2), 6, 2)).toEqual(rows);
});

test.each([config, { ...config, tied: false }])(
  "all weights and the configuration (tied: $tied)",
  async (of) => {
    const model = await openLlama2c(bytesSource("m.bin", fileOf(of)));
    expect(model.config).toEqual(of);
    const weights = someWeights(of);
    for (const name of weightShapes(of).keys())
      expect(await readValues(model.weight(name)), name).toEqual(weights.get(name));
    expect(() => model.weight("x")).toThrow(RangeError);
  },
);

test("a file of another size, and a header that makes no sense", async () => {
  const file = fileOf(config);
  const withField = (index: number, value: number) => {
    const copy = file.slice();
    new DataView(copy.buffer).setInt32(index * 4, value, true);
    return copy;
  };
  const cases: [Uint8Array, RegExp][] = [
    [file.subarray(0, file.length - 1), /header promises/],
    [Uint8Array.from([...file, 0]), /header promises/],
    [file.subarray(0, 27), /too few/],
    [new Uint8Array(0), /too few/],
    [withField(0, -1), /dim is -1/],
    [withField(2, 0x7fffffff), /n_layers/],
    [withField(2, 5000), /n_layers is 5000/],
    [withField(3, 3), /3 heads do not divide/],
    [withField(3, 8), /a head of 1 is odd/],
    [withField(4, 3), /3 kv heads do not divide/],
    [withField(5, 0), /vocab_size is 0/],
    [withField(5, -2147483648), /vocab_size/],
    [withField(6, 17), /header promises/],
  ];
  for (const [bytes, message] of cases) {
    const error = await rejection(openLlama2c(bytesSource("m.bin", bytes)));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(/^m\.bin: /);
    expect(error.message).toMatch(message);
  }
});

test("a weight that is not finite is named", async () => {
  const file = fileOf(config);
  new DataView(file.buffer).setFloat32(28 + 4 * 3, Number.NaN, true);
  const model = await openLlama2c(bytesSource("m.bin", file));
  await expect(readValues(model.weight("embed.weight"))).rejects.toThrow(
    "m.bin: tensor 'embed.weight' holds NaN at index 3",
  );
});
