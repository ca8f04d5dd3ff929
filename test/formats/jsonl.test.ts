import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { parseJsonLines, readJsonLines } from "../../src/formats/jsonl.js";
import { rejection, temporaryFolder } from "./helpers.js";

test("records, with a byte-order mark, CRLF, blank lines and unknown fields", () => {
  const text = [
    '\uFEFF{"prompt":"a","response":"bc","harmful":true,"onset":2,"category":"x","language":"en","trigger":"c"}',
    "",
    '{"prompt":"d","onset":null,"response":null}',
    "   ",
    '{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yo"}],"harmful":false}',
    "",
  ].join("\r\n");
  expect(parseJsonLines(text, "f")).toEqual([
    { prompt: "a", response: "bc", harmful: true, onset: 2, category: "x", language: "en" },
    { prompt: "d" },
    {
      messages: [
        { role: "user", content: "hi" },
        { role: "assistant", content: "yo" },
      ],
      harmful: false,
    },
  ]);
});

test.each([
  ["{", /f:2: is not valid JSON/],
  ["[1]", /f:2: is not a JSON object/],
  ["null", /f:2: is not a JSON object/],
  ["{}", /f:2: has neither 'prompt' nor 'messages'/],
  ['{"prompt":1}', /f:2: 'prompt' must be a string, got 1/],
  ['{"prompt":"a","response":[]}', /f:2: 'response' must be a string/],
  ['{"prompt":"a","harmful":"yes"}', /f:2: 'harmful' must be true or false/],
  ['{"prompt":"a","onset":-1}', /f:2: 'onset'/],
  ['{"prompt":"a","onset":1.5}', /f:2: 'onset'/],
  ['{"prompt":"a","response":"bc","onset":3}', /f:2: 'onset' must be an integer from 0 to 2/],
  ['{"prompt":"a","category":1}', /f:2: 'category'/],
  ['{"prompt":"a","language":{}}', /f:2: 'language'/],
  ['{"prompt":"a","messages":[{"role":"user","content":"a"}]}', /f:2: 'messages' and 'prompt'/],
  ['{"messages":[]}', /f:2: 'messages' must be a list/],
  ['{"messages":{}}', /f:2: 'messages' must be a list/],
  ['{"messages":["a"]}', /f:2: 'messages\.0' must be an object/],
  ['{"messages":[{"role":"user"}]}', /f:2: 'messages\.0\.content' is missing/],
  ['{"messages":[{"role":1,"content":"a"}]}', /f:2: 'messages\.0\.role'/],
])("a bad line is named: %s", (line, message) => {
  const parse = () => parseJsonLines(`{"prompt":"a"}\n${line}\n`, "f");
  expect(parse).toThrow(FormatError);
  expect(parse).toThrow(message);
});

test("an empty set is refused", () => {
  for (const text of ["", "\uFEFF", "\n \r\n"])
    expect(() => parseJsonLines(text, "f")).toThrow("f: holds no examples");
});

test("from disk: read, missing, a folder, not UTF-8", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "d.jsonl");
  await writeFile(file, '\uFEFF{"prompt":"é"}\n');
  expect(await readJsonLines(file)).toEqual([{ prompt: "é" }]);
  expect((await rejection(readJsonLines(join(folder, "x")))).message).toBe(
    `${folder}/x: no such file or folder`,
  );
  expect((await rejection(readJsonLines(folder))).message).toMatch(/is a folder/);
  await writeFile(file, Uint8Array.of(0x22, 0xff));
  expect((await rejection(readJsonLines(file))).message).toBe(`${file}: is not UTF-8 text`);
});
