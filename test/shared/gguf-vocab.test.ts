import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { openFiles } from "../../src/formats/files.js";
import { openGguf } from "../../src/formats/gguf.js";
import { ggufTokenizer } from "../../src/formats/gguf-tokenizer.js";
import { readGgufVocabulary } from "../../src/formats/gguf-vocabulary.js";
import { metadataFields } from "../../src/formats/gguf-weights.js";
import { sharedMissing, sharedPath } from "../shared.js";

const FOLDER = ["data", "vectors", "gguf-vocab"];
/** What llama.cpp's `tests/test-tokenizer-0.cpp` has between texts. */
const SEPARATOR = "\n__ggml_vocab_test__\n";

const isMissing = sharedMissing(...FOLDER);
const names = isMissing ? [] : readdirSync(sharedPath(...FOLDER)).filter((name) => name.endsWith(".gguf"));

describe.skipIf(isMissing)("llama.cpp's vocabularies", () => {
  it.each(names)("%s gives the ids that are listed", async (name) => {
    const files = await openFiles(sharedPath(...FOLDER, name));
    const file = await openGguf(await files.open(name));
    const vocabulary = readGgufVocabulary(metadataFields(file));
    await file.close();
    if (!vocabulary) throw new Error(`${name} has no vocabulary`);
    const tokenizer = await ggufTokenizer(vocabulary, name);
    const texts = (await readFile(sharedPath(...FOLDER, `${name}.inp`), "utf8")).split(SEPARATOR);
    const lists = (await readFile(sharedPath(...FOLDER, `${name}.out`), "utf8")).split("\n");
    expect(texts.length).toBeGreaterThan(1);
    for (const [i, text] of texts.entries()) {
      const expected = (lists[i] ?? "")
        .split(" ")
        .filter((id) => id !== "")
        .map(Number);
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(expected);
      expect(tokenizer.decode(tokenizer.encode(text)).trimStart(), JSON.stringify(text)).toBe(
        text.trimStart(),
      );
    }
  });
});
