#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import { BackendError, DivergenceError, FormatError, UnsupportedError } from "../errors.js";
import { benchCommand } from "./bench.js";
import { calibrateCommand } from "./calibrate.js";
import { demoCommand } from "./demo.js";
import { evalCommand } from "./eval.js";
import { exportCommand } from "./export.js";
import { generateCommand } from "./generate.js";
import { Interrupted } from "./interrupt.js";
import { logitsCommand } from "./logits.js";
import { withGlobalOptions } from "./options.js";
import { pretrainCommand } from "./pretrain.js";
import { scoreCommand } from "./score.js";
import { sweepCommand } from "./sweep.js";
import { trainCommand } from "./train.js";
import { version } from "./version.js";

const COMMANDS = [
  demoCommand,
  logitsCommand,
  generateCommand,
  trainCommand,
  pretrainCommand,
  scoreCommand,
  calibrateCommand,
  evalCommand,
  sweepCommand,
  exportCommand,
  benchCommand,
];

/** Exit codes: a failed run, and bad usage. `Interrupted` has its own. */
const FAILED = 1;
const USAGE = 2;

function program(): Command {
  const root = new Command("oriflamme")
    .description("Train and run small transformers with a red-flag token.")
    .version(version())
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(`${oneLine(text.replace(/^error: /, "oriflamme: "))}\n`),
    });
  for (const make of COMMANDS) withGlobalOptions(make(root));
  return root;
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, " ");
}

/** One line, whatever was thrown. */
function lineOf(error: unknown): string {
  const known = [
    ...[BackendError, DivergenceError, FormatError, UnsupportedError, Interrupted],
    ...[RangeError, TypeError],
  ];
  const message = error instanceof Error ? error.message : String(error);
  const name =
    error instanceof Error && !known.some((kind) => error instanceof kind) ? `${error.name}: ` : "";
  return `oriflamme: ${oneLine(name + message)}\n`;
}

async function main(): Promise<number> {
  try {
    await program().parseAsync();
    return 0;
  } catch (error) {
    // Commander has written its own line.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
    process.stderr.write(lineOf(error));
    if (process.env.ORIFLAMME_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    if (error instanceof Interrupted) return error.exitCode;
    return error instanceof RangeError ? USAGE : FAILED;
  }
}

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // A reader that has seen enough (`| head`) is no error.
  if (error.code === "EPIPE") process.exit(0);
  process.stderr.write(`oriflamme: stdout: ${oneLine(error.message)}\n`);
  process.exit(FAILED);
});
process.exitCode = await main();
