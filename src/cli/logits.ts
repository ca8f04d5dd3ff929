import type { Command } from "commander";
import { writeSafetensors } from "../formats/safetensors-write.js";
import { replaceFile } from "../formats/write.js";
import { forward, head } from "../model/forward.js";
import { Tape } from "../tape.js";
import { Arena } from "../tensor.js";
import { expectIds, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, idList } from "./options.js";
import { jsonLine } from "./terminal.js";

interface LogitsOptions extends ModelOptions {
  readonly ids: number[];
  readonly out: string;
}

/** `logits`: what the model says after every token, as a safetensors file. */
export function logitsCommand(root: Command): Command {
  return root
    .command("logits")
    .description("write the logits after each of the given tokens")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .option("--adapter <folder>", "red flag of `train`")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--ids <list>", "token ids, as 1,2,3", idList)
    .requiredOption("--out <file>", "safetensors file: logits (T, V) f32")
    .action(run);
}

async function run(options: LogitsOptions): Promise<void> {
  await withModel(options, async ({ model, flagged, backend }) => {
    expectIds(options.ids, model, flagged);
    const tape = new Tape(new Arena(backend), false);
    const hidden = forward(tape, model, options.ids, { overlay: flagged?.overlay });
    const logits = head(tape, model, hidden, flagged?.overlay);
    const data = await logits.read();
    const tensors = new Map([["logits", { dtype: "F32" as const, shape: [...logits.shape], data }]]);
    await replaceFile(options.out, writeSafetensors(tensors));
    if (options.json) jsonLine({ out: options.out, shape: logits.shape, backend: backend.description });
    else
      process.stdout.write(`${options.out}: logits (${logits.shape.join(", ")}) on ${backend.description}\n`);
  });
}
