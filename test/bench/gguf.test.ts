import { expect, test } from "vitest";
import { openGgufModel } from "../../src/formats/gguf-weights.js";
import { bytesSource } from "../../src/formats/source.js";
import { readValues } from "../../src/model/stored-weight.js";
import { concatenate } from "../formats/helpers.js";

/** The scripts of the competitors have no types, and they import what `npm run build` made. */
const { llamaGguf } = await import(new URL("../../bench/peers/llama-gguf.mjs", import.meta.url).href);
const { llamaConfig, llamaWeights } = await import(
  new URL("../../dist/cli/bench/kit.js", import.meta.url).href
);

test("llama.cpp's file of the decode suite has our weights, all matrices in the asked type", async () => {
  const shape = [32, 1, 2, 1, 64, 300, 4, 4];
  const bytes = await concatenate(llamaGguf(shape, 16, "f32"));
  const model = await openGgufModel(bytesSource("m.gguf", bytes));
  const config = llamaConfig(shape, 16);
  expect(model.config).toEqual({ ...config, bosId: 1, eosIds: [2] });
  for (const { name, values } of llamaWeights(config)) {
    expect(await readValues(model.weight(name)), name).toEqual(values);
  }

  const small = await openGgufModel(bytesSource("m.gguf", await concatenate(llamaGguf(shape, 16, "q4_0"))));
  for (const name of ["embed", "layers.0.q", "layers.0.v", "layers.0.down"]) {
    expect(small.weight(`${name}.weight`).dtype, name).toBe("q4_0");
  }
  expect(small.weight("norm.weight").dtype).toBe("f32");
});
