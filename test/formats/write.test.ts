import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { replaceFile, writeFolder } from "../../src/formats/write.js";
import { rejection, temporaryFolder } from "./helpers.js";

async function* chunks(count: number, failAfter = count): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) {
    if (i === failAfter) throw new RangeError("the producer gave up");
    yield new Uint8Array(1 << 16).fill(i + 1);
  }
}

describe("a file", () => {
  test("is written from text, bytes and chunks, and replaced", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "f");
    await replaceFile(file, "é");
    expect(await readFile(file, "utf8")).toBe("é");
    await replaceFile(file, Uint8Array.of(1, 2));
    expect([...(await readFile(file))]).toEqual([1, 2]);
    await replaceFile(file, chunks(3));
    expect((await stat(file)).size).toBe(3 << 16);
    expect(await readdir(folder)).toEqual(["f"]);
  });

  test("stays as it was when the content fails halfway, and nothing is left beside it", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "f");
    await writeFile(file, "old");
    const error = await rejection(replaceFile(file, chunks(3, 2)));
    expect(error).toBeInstanceOf(RangeError);
    expect(await readFile(file, "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["f"]);
  });

  test("cannot be a folder, lie in a file, or in a folder that is missing", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "f"), "x");
    for (const [path, reason] of [
      [folder, "it is a folder"],
      [join(folder, "f", "g"), "ENOTDIR"],
      [join(folder, "x", "g"), "ENOENT: no such file or directory"],
    ] as const) {
      const error = await rejection(replaceFile(path, "a"));
      expect(error).toBeInstanceOf(FormatError);
      expect(error.message).toContain(`${path}: cannot be written: ${reason}`);
    }
    expect(await readdir(folder)).toEqual(["f"]);
  });

  // Only Linux has this device.
  test.skipIf(!existsSync("/dev/full"))("a device is written to, not replaced", async () => {
    const folder = await temporaryFolder();
    const link = join(folder, "full");
    await symlink("/dev/full", link);
    for (const path of ["/dev/full", link]) {
      const error = await rejection(replaceFile(path, "a"));
      expect(error).toBeInstanceOf(FormatError);
      expect(error.message).toBe(`${path}: cannot be written: ENOSPC: no space left on device`);
    }
    expect((await stat("/dev/full")).isCharacterDevice()).toBe(true);
    await replaceFile("/dev/null", "a");
    expect((await stat("/dev/null")).isCharacterDevice()).toBe(true);
    expect(await readdir(folder)).toEqual(["full"]);
  });
});

describe("a folder", () => {
  const files = (text: string) =>
    new Map([
      ["a", text],
      ["b", `${text}!`],
    ]);

  test("is made with all above it, and then replaced file by file; other files stay", async () => {
    const folder = await temporaryFolder();
    const target = join(folder, "x", "y");
    await writeFolder(`${target}/`, files("one"));
    await writeFile(join(target, "mine"), "mine");
    await writeFolder(target, files("two"));
    expect((await readdir(target)).sort()).toEqual(["a", "b", "mine"]);
    expect(await readFile(join(target, "b"), "utf8")).toBe("two!");
    expect(await readdir(join(folder, "x"))).toEqual(["y"]);
  });

  test("is not there, or as it was, when one of its files fails", async () => {
    const folder = await temporaryFolder();
    const target = join(folder, "out");
    const failing = new Map<string, string | AsyncIterable<Uint8Array>>([
      ["a", "new"],
      ["b", chunks(3, 1)],
    ]);
    expect(await rejection(writeFolder(target, failing))).toBeInstanceOf(RangeError);
    expect(await readdir(folder)).toEqual([]);

    await writeFolder(target, files("old"));
    failing.set("b", chunks(3, 1));
    expect(await rejection(writeFolder(target, failing))).toBeInstanceOf(RangeError);
    expect((await readdir(target)).sort()).toEqual(["a", "b"]);
    expect(await readFile(join(target, "a"), "utf8")).toBe("old");
  });

  test("cannot replace a file, and none of its files a folder", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "f"), "x");
    expect((await rejection(writeFolder(join(folder, "f"), files("a")))).message).toMatch(
      /f: .* not a folder/,
    );
    await mkdir(join(folder, "b"));
    const error = await rejection(writeFolder(folder, files("a")));
    expect(error.message).toBe(`${join(folder, "b")}: cannot be written: it is a folder`);
    expect((await readdir(folder)).sort()).toEqual(["b", "f"]);
  });
});

/** A file system of 256 KiB, or null where mounting is not allowed. */
async function smallDisk(): Promise<string | null> {
  const folder = await temporaryFolder();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], { stdio: "ignore" });
  } catch {
    return null;
  }
  onTestFinished(() => void execFileSync("umount", [folder]));
  return folder;
}

test("a full disk leaves the old file, the old folder and no debris", async (context) => {
  const disk = await smallDisk();
  if (disk === null) return context.skip("mounting a small file system is not allowed here");
  const message = (path: string) => `${path}: cannot be written: ENOSPC: no space left on device`;

  await writeFile(join(disk, "f"), "old");
  expect((await rejection(replaceFile(join(disk, "f"), chunks(8)))).message).toBe(message(join(disk, "f")));
  expect(await readFile(join(disk, "f"), "utf8")).toBe("old");
  expect(await readdir(disk)).toEqual(["f"]);

  const big = () =>
    new Map<string, string | AsyncIterable<Uint8Array>>([
      ["f", "new"],
      ["g", chunks(8)],
    ]);
  // The mount point itself: its files cannot be renamed from a folder beside it.
  expect((await rejection(writeFolder(disk, big()))).message).toBe(message(join(disk, "g")));
  expect(await readFile(join(disk, "f"), "utf8")).toBe("old");
  expect((await rejection(writeFolder(join(disk, "new"), big()))).message).toBe(
    message(join(disk, "new", "g")),
  );
  expect(await readdir(disk)).toEqual(["f"]);
  await writeFolder(disk, new Map([["f", "new"]]));
  expect(await readFile(join(disk, "f"), "utf8")).toBe("new");
});

/** Runs `write.ts` as it is under a limit on the size of files, which needs no rights but a shell with `ulimit`. */
test.skipIf(process.platform === "win32")(
  "a limit on file sizes is reported like a full disk",
  async (context) => {
    const [major = 0] = process.versions.node.split(".").map(Number);
    if (major < 24) return context.skip("needs a Node that runs TypeScript");
    const folder = await temporaryFolder();
    await writeFile(join(folder, "f"), "old");
    const hook =
      'import { registerHooks } from "node:module"; registerHooks({ resolve: (name, context, next) => ' +
      'next(name.startsWith(".") ? name.replace(/\\.js$/, ".ts") : name, context) });';
    const source = JSON.stringify(fileURLToPath(new URL("../../src/formats/write.ts", import.meta.url)));
    const script = `const { replaceFile } = await import(${source});
    try { await replaceFile(process.argv[1], new Uint8Array(1 << 20)); } catch (error) { console.log(error.message); }`;
    const loader = `data:text/javascript,${encodeURIComponent(hook)}`;
    const { stdout } = await promisify(execFile)("sh", [
      "-c",
      'ulimit -f 64; exec "$0" "$@"',
      process.execPath,
      "--no-warnings",
      "--experimental-transform-types",
      "--import",
      loader,
      "--input-type=module",
      "-e",
      script,
      join(folder, "f"),
    ]);
    expect(stdout.trim()).toBe(`${join(folder, "f")}: cannot be written: EFBIG: file too large`);
    expect(await readFile(join(folder, "f"), "utf8")).toBe("old");
    expect(await readdir(folder)).toEqual(["f"]);
  },
);
