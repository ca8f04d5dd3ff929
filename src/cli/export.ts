import { join } from "node:path";
import { type Command, Option } from "commander";
import { WEIGHT_TYPES, type WeightType } from "../dtype.js";
import { EXPORT_FORMATS, type ExportFormat, exportFiles } from "../flag/export.js";
import { isFile } from "../formats/write.js";
import type { GlobalOptions } from "./options.js";
import { jsonLine, type Progress, progressBar } from "./terminal.js";

interface ExportCommandOptions extends GlobalOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly tokenizer?: string;
  readonly to: ExportFormat;
  readonly out: string;
  readonly type?: WeightType;
}

const MB = 1e6;

/** `export`: a model with its flag merged in, or the adapter, for other engines. */
export function exportCommand(root: Command): Command {
  return root
    .command("export")
    .description("write a model with its red flag for other engines")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .option("--adapter <folder>", "red flag of `train`")
    .option("--tokenizer <file>", "tokenizer where it is not beside the model")
    .addOption(
      new Option(
        "--to <format>",
        "hf: merged Hugging Face folder; gguf: the same in a file; peft: the adapter",
      )
        .choices(EXPORT_FORMATS)
        .makeOptionMandatory(),
    )
    .requiredOption("--out <path>", "what is written")
    .addOption(
      new Option("--type <type>", "what weights are stored as (default: as in --model, of gguf f16)").choices(
        WEIGHT_TYPES,
      ),
    )
    .action(run);
}

async function run({ out, to, json, type, ...from }: ExportCommandOptions): Promise<void> {
  let bar: Progress | undefined;
  try {
    await exportFiles(from, out, {
      to,
      ...(type === undefined ? {} : { type }),
      onProgress(written, total) {
        bar ??= progressBar("MB", Math.ceil(total / MB));
        bar.update(Math.ceil(written / MB));
      },
    });
  } finally {
    bar?.stop();
  }
  const isBare = to === "hf" && !(await isFile(join(out, "tokenizer.json")));
  if (json) jsonLine({ out, to });
  else
    process.stdout.write(
      `${out}: ${to}${isBare ? ", without a tokenizer: the model has no tokenizer.json" : ""}\n`,
    );
}
