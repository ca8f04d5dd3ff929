import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { byteTokenizerFiles } from "../../src/formats/byte-level.js";
import { writeHuggingFace } from "../../src/formats/hf-write.js";
import { openModel } from "../../src/formats/load.js";
import { readValues } from "../../src/model/stored-weight.js";
import { readerOf, rejection, someWeights, temporaryFolder, tinyLlama } from "./helpers.js";

const config = { ...tinyLlama, vocabSize: 258, bosId: 256, eosIds: [257] };

describe("a Hugging Face folder", () => {
  test("with its tokenizer", async () => {
    const folder = join(await temporaryFolder(), "m");
    await writeHuggingFace(folder, config, readerOf(someWeights(config)), byteTokenizerFiles());
    const model = await openModel(folder);
    expect(model.config).toEqual(config);
    expect(model.tokenizer?.encode("hé")).toEqual([104, 0xc3, 0xa9]);
    expect(model.tokenizer?.bosId).toBe(256);
    expect(model.description).toBe(`llama, 2 layers of 8, 258 tokens, context 16: ${folder}`);
    expect(await readValues(model.weight("norm.weight"))).toEqual(someWeights(config).get("norm.weight"));
    await model.close();
  });

  test("without one, and with one from elsewhere", async () => {
    const parent = await temporaryFolder();
    const [bare, other] = [join(parent, "m"), join(parent, "t.json")];
    await writeHuggingFace(bare, config, readerOf(someWeights(config)));
    const model = await openModel(bare);
    expect(model.tokenizer).toBeNull();
    await model.close();
    await writeFile(other, JSON.stringify(byteTokenizerFiles().tokenizerJson));
    const named = await openModel(bare, { tokenizer: other });
    expect(named.tokenizer?.vocabSize).toBe(258);
    await named.close();
    expect((await rejection(openModel(bare, { tokenizer: join(parent, "x") }))).message).toMatch(
      /x: no such file/,
    );
    expect((await rejection(openModel(bare, { tokenizer: bare }))).message).toMatch(/holds no tokenizer/);
  });

  test("a tokenizer with more tokens than the model is refused", async () => {
    const folder = join(await temporaryFolder(), "m");
    const small = { ...config, vocabSize: 200, bosId: null, eosIds: [] };
    await writeHuggingFace(folder, small, readerOf(someWeights(small)), byteTokenizerFiles());
    const error = await rejection(openModel(folder));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toBe(
      `${folder}/tokenizer.json: has a token 200, but the model's vocabulary is 200`,
    );
  });
});

test("what is no model", async () => {
  const folder = await temporaryFolder();
  const at = (name: string) => join(folder, name);
  await writeFile(at("m.gguf"), "GGUF");
  await writeFile(at("m.bin"), "x");
  await writeFile(at("m.txt"), "x");
  const cases: [Parameters<typeof openModel>[0], RegExp][] = [
    [at("m.gguf"), /m\.gguf: the version needs 4 bytes/],
    [at("m.bin"), /m\.bin: is not a llama2\.c model/],
    [at("m.txt"), /m\.txt: is not a model: expected a folder/],
    [folder, /holds several models: m\.bin, m\.gguf/],
    [at("none"), /none: no such file or folder/],
    [{}, /holds no config\.json/],
    [{ "config.json": new TextEncoder().encode("{") }, /config\.json: .*not valid JSON/],
  ];
  for (const [input, message] of cases) {
    const error = await rejection(openModel(input));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toMatch(message);
  }
});
