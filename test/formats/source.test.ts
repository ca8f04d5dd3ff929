import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { openFiles } from "../../src/formats/files.js";
import { rejection, temporaryFolder } from "./helpers.js";

const content = Uint8Array.of(1, 2, 3, 4, 5);

async function inputs(): Promise<[string, Parameters<typeof openFiles>[0]][]> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "a.bin"), content);
  await writeFile(join(folder, "b.txt"), "é");
  await mkdir(join(folder, "sub"));
  const text = new TextEncoder().encode("é");
  return [
    ["a folder", folder],
    ["a file and its neighbours", join(folder, "a.bin")],
    ["arrays", { "a.bin": content, "b.txt": text }],
    [
      "a map of blobs",
      new Map([
        ["a.bin", new Blob([content])],
        ["b.txt", new Blob([text])],
      ]),
    ],
    ["a page's files", [new File([content], "a.bin"), new File([text], "b.txt")]],
  ];
}

test("the same files from every kind of place", async () => {
  for (const [what, input] of await inputs()) {
    const files = await openFiles(input);
    expect(files.names, what).toEqual(["a.bin", "b.txt"]);
    expect(files.main, what).toBe(typeof input === "string" && input.endsWith("a.bin") ? "a.bin" : null);
    expect(await files.text("b.txt"), what).toBe("é");
    expect(files.has("sub"), what).toBe(false);

    const source = await files.open("a.bin");
    expect(source.size, what).toBe(5);
    const bytes = await source.read(1, 3);
    expect([...bytes], what).toEqual([2, 3, 4]);
    expect([bytes.byteOffset, bytes.buffer.byteLength], what).toEqual([0, 3]);
    expect((await source.read(5, 0)).length, what).toBe(0);
    for (const [offset, length] of [
      [3, 3],
      [6, 0],
      [-1, 2],
      [0, -1],
      [Number.NaN, 1],
    ] as const) {
      const error = await rejection(source.read(offset, length));
      expect(error, what).toBeInstanceOf(FormatError);
      expect(error.message, what).toMatch(/a\.bin: ends at byte 5/);
    }
    await source.close();
    expect((await rejection(files.open("../a.bin"))).message, what).toMatch(/no such file or folder/);
  }
});

test("what is read does not change with the caller's array", async () => {
  const mine = content.slice();
  const source = await (await openFiles({ "a.bin": mine })).open("a.bin");
  const bytes = await source.read(0, 2);
  bytes[0] = 9;
  expect(mine[0]).toBe(1);
});

test("paths that name nothing", async () => {
  const folder = await temporaryFolder();
  for (const path of ["", join(folder, "x"), join(folder, "x", "y")]) {
    const error = await rejection(openFiles(path));
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toBe(`${path || "(empty path)"}: no such file or folder`);
  }
});

test("a name that is given twice", async () => {
  const twice = [new File([content], "a"), new File([content], "a")];
  expect((await rejection(openFiles(twice))).message).toBe("a: was given twice");
});

// Root may read every file.
test.skipIf(process.getuid?.() === 0)("a file that may not be read", async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, "a"), "x");
  await chmod(join(folder, "a"), 0);
  expect((await rejection((await openFiles(folder)).open("a"))).message).toMatch(/cannot be read: EACCES/);
});
