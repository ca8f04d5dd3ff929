// AssemblyScript's compiler, with one thing more: loops that are unrolled in the source.
//
//   for (let step: usize = 0; unrolled(step < 8); step++) { … }
//
// becomes eight copies of the block, `step` a literal in each. The compiler's optimiser unrolls nothing, and a constant
// index is what makes an offset part of a load.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import asc from "assemblyscript/asc";

const LOOP = /for \(let (\w+): \w+ = 0; unrolled\(\1 < (\d+)\); \1\+\+\) \{/;

/** The source with its unrolled loops written out; on as many lines, so that messages name the right ones. */
export function unroll(source) {
  const head = LOOP.exec(source);
  if (!head) return source;
  const [text, name, count] = head;
  const start = head.index + text.length - 1;
  const end = closing(source, start) + 1;
  const block = unroll(source.slice(start, end));
  const index = new RegExp(`\\b${name}\\b`, "g");
  const copies = Array.from({ length: Number(count) }, (_, i) => {
    const copy = block.replace(index, `${i}`);
    return i === 0 ? copy : copy.replace(/\s*\/\/.*$/gm, "").replace(/\n/g, " ");
  });
  return source.slice(0, head.index) + copies.join(" ") + unroll(source.slice(end));
}

/** Where the brace at `start` is closed. Neither strings nor comments of the kernels hold braces. */
function closing(source, start) {
  let depth = 0;
  for (let i = start; i < source.length; i++) {
    if (source[i] === "{") depth++;
    if (source[i] === "}" && --depth === 0) return i;
  }
  throw new SyntaxError("an unrolled loop is not closed");
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { error } = await asc.main(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    async readFile(name, folder) {
      try {
        return unroll(await readFile(resolve(folder, name), "utf8"));
      } catch (problem) {
        // The compiler asks for files that may not be there, and wants null then.
        if (problem.code === "ENOENT") return null;
        throw problem;
      }
    },
  });
  if (error) process.exitCode = 1;
}
