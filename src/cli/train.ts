import type { Command } from "commander";
import { RED_FLAG_DEFAULTS, type RedFlagRun, trainRedFlag } from "../flag/train.js";
import { addRedFlag } from "../flag/vocab.js";
import { type Example, readJsonLines } from "../formats/jsonl.js";
import { expectFolderTarget, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer } from "./options.js";
import { readTrainSettings } from "./train-settings.js";
import { type TrainingOptions, trainingRun, withTrainingOptions } from "./training-run.js";

interface TrainCommandOptions extends ModelOptions, TrainingOptions {
  readonly harmful: string;
  readonly benign: string;
  readonly config?: string;
  readonly steps?: number;
  /** Names, or `data`. */
  readonly categories?: string;
}

/** `train`: teaches a model the red flag and writes it as a PEFT adapter. */
export function trainCommand(root: Command): Command {
  const command = root
    .command("train")
    .description("teach a model the red flag")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--harmful <file>", "JSON Lines: prompt, response, onset?, category?")
    .requiredOption("--benign <file>", "JSON Lines: prompt, response")
    .requiredOption("--out <folder>", "PEFT adapter folder; with method full a model folder")
    .option("--config <file>", "JSON of hyperparameters")
    .option("--steps <n>", `steps of the optimiser (default: ${RED_FLAG_DEFAULTS.steps})`, integer(1))
    .option(
      "--categories <list>",
      "a flag for each of these categories of harm: names with commas between, or data for those of --harmful",
    );
  return withTrainingOptions(command).action(run);
}

async function run(options: TrainCommandOptions): Promise<void> {
  const { flag, given } = await readTrainSettings(options.config);
  await expectFolderTarget(options.out);
  const harmful = await readJsonLines(options.harmful);
  const benign = await readJsonLines(options.benign);
  const steps = options.steps ?? given.steps ?? RED_FLAG_DEFAULTS.steps;
  const seed = options.seed ?? given.seed ?? RED_FLAG_DEFAULTS.seed;
  // All weights are trained from f32 copies, and measured against the model in the same arithmetic.
  const dtype = given.method === "full" && options.dtype === "stored" ? "f32" : options.dtype;
  await withModel({ ...options, dtype }, ({ model, backend }) =>
    trainingRun("train", steps, { options, backend }, async (run) => {
      const start = performance.now();
      const flagged = await addRedFlag(model, {
        ...flag,
        seed,
        ...(options.categories ? { categories: categoriesOf(options.categories, harmful) } : {}),
      });
      const result = await trainRedFlag(flagged, {
        ...given,
        steps,
        seed,
        harmful,
        benign,
        onResponse: (done, total) => run.onResponse(done, total),
        onStep: (step) => run.onStep(step),
        signal: run.signal,
        ...(run.checkpoint && { checkpoint: run.checkpoint }),
      });
      run.stop();
      await result.save(options.out);
      const { leftOut, completed } = result;
      if (!options.json) {
        const seconds = ((performance.now() - start) / 1000).toFixed(1);
        process.stdout.write(
          `${options.out}: ${steps} steps in ${seconds} s, loss ${result.steps.at(-1)?.loss.toFixed(4)}` +
            `${counted("left out", leftOut)}${counted("completed", completed)}\n`,
        );
      }
    }),
  );
}

function counted(what: string, { harmful, benign }: RedFlagRun["leftOut"]): string {
  return harmful + benign > 0 ? `; ${what}: ${harmful} harmful, ${benign} benign examples` : "";
}

/** The categories that --categories names; those of the data in the order of their names. */
function categoriesOf(text: string, harmful: readonly Example[]): string[] {
  if (text !== "data") return text.split(",");
  const found = harmful.flatMap(({ category }) => category ?? []);
  if (found.length === 0) throw new RangeError("--categories data: no harmful example has a category");
  return [...new Set(found)].sort();
}
