import { type Command, InvalidArgumentError } from "commander";
import { SUITE_NAMES } from "./bench/names.js";
import { type GlobalOptions, integer } from "./options.js";

export interface BenchOptions extends GlobalOptions {
  readonly time: number;
  readonly peers: boolean;
  readonly chart?: string;
}

/** `bench`: how fast the engine is on this machine, and how fast others are. */
export function benchCommand(root: Command): Command {
  return root
    .command("bench")
    .description("measure the engine on this machine, on one thread unless --threads says more")
    .argument("[suites...]", `of ${SUITE_NAMES.join(", ")} (default: all)`, parseSuite)
    .option("--time <ms>", "least time that a case is measured", integer(1), 500)
    .option("--peers", "measure the competitors too, in turn (in a checkout of the repository)", false)
    .option("--chart <file>", "draw the measurements as SVG (likewise)")
    .action(async (names: string[], options: BenchOptions) => {
      const { run } = await import("./bench/run.js");
      await run(names, options);
    });
}

function parseSuite(name: string, before: string[] = []): string[] {
  if (!SUITE_NAMES.some((known) => known === name))
    throw new InvalidArgumentError(`There are ${SUITE_NAMES.join(", ")}.`);
  return [...before, name];
}
