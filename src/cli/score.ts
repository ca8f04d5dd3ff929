import { type Command, InvalidArgumentError } from "commander";
import { FormatError } from "../errors.js";
import { promptFits, respond, sequenceToRead } from "../flag/conversation.js";
import type { FlagSequence } from "../flag/data.js";
import { type FlagScore, FlagScorer } from "../flag/score.js";
import type { FlaggedModel } from "../flag/vocab.js";
import { type Example, readJsonLines } from "../formats/jsonl.js";
import { replaceFile } from "../formats/write.js";
import { type ModelOptions, withModel } from "./load.js";
import { dtypeOption, integer } from "./options.js";
import { jsonLine, progressBar } from "./terminal.js";

interface ScoreOptions extends ModelOptions {
  readonly adapter: string;
  readonly data: string;
  readonly out: string;
  readonly shard?: { readonly index: number; readonly count: number };
  readonly maxTokens: number;
}

/** `score`: what the flag says of every response of a file. */
export function scoreCommand(root: Command): Command {
  return root
    .command("score")
    .description("read the red flag along given responses, or generated ones where there are none")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .requiredOption("--adapter <folder>", "red flag of `train`")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .requiredOption("--data <file>", "JSON Lines: prompt, response?")
    .requiredOption(
      "--out <file>",
      "JSON Lines: index, flag_max, flag_cumulative, first_flag, flag_category?, harmful",
    )
    .option("--shard <i/n>", "only every n-th input, from the i-th on (0 <= i < n)", parseShard)
    .option("--max-tokens <n>", "most tokens of a response, given or generated", integer(1), 512)
    .action(run);
}

function parseShard(text: string): { index: number; count: number } {
  const match = /^(\d+)\/(\d+)$/.exec(text);
  const [index, count] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || index >= count) throw new InvalidArgumentError("It must be i/n with 0 <= i < n.");
  return { index, count };
}

async function run(options: ScoreOptions): Promise<void> {
  const examples = await readJsonLines(options.data);
  await withModel(options, async ({ flagged }) => {
    if (!flagged) throw new RangeError("score needs --adapter");
    const { index: first, count } = options.shard ?? { index: 0, count: 1 };
    const chosen = examples
      .map((example, index) => ({ example, index }))
      .filter(({ index }) => index % count === first)
      .map((input) => ({ ...input, sequence: sequenceOf(flagged, input.example, input.index, options) }));
    const scorer = new FlagScorer(flagged);
    const bar = progressBar("score", chosen.length);
    const lines: string[] = [];
    try {
      for (const { example, index, sequence } of chosen) {
        const score = await scoreSequence(scorer, flagged, sequence, options.maxTokens);
        const line = {
          index,
          flag_max: score.max,
          flag_cumulative: score.cumulative,
          first_flag: score.first,
          ...(score.category === null ? {} : { flag_category: score.category }),
          harmful: example.harmful ?? null,
        };
        lines.push(`${JSON.stringify(line)}\n`);
        if (options.json) jsonLine(line);
        bar.update(lines.length);
      }
    } finally {
      bar.stop();
      scorer.dispose();
    }
    await replaceFile(options.out, lines.join(""));
    if (!options.json) process.stdout.write(`${options.out}: ${lines.length} of ${examples.length} inputs\n`);
  });
}

/** The ids of an input. */
function sequenceOf(
  { model }: FlaggedModel,
  example: Example,
  index: number,
  { data, maxTokens }: ScoreOptions,
): FlagSequence {
  const sequence = sequenceToRead(model, example, maxTokens);
  if (promptFits(model, sequence.prompt)) return sequence;
  const problem = `its prompt has ${sequence.prompt.length} tokens, the model takes 1 to ${model.config.contextLength}`;
  throw new FormatError(`${data}, input ${index}`, problem);
}

/** Teacher-forced over the response; where there is none, over one that the model generates greedily. */
async function scoreSequence(
  scorer: FlagScorer,
  flagged: FlaggedModel,
  sequence: FlagSequence,
  maxTokens: number,
): Promise<FlagScore> {
  if (sequence.response.length > 0) return scorer.score(sequence);
  return scorer.score({ ...sequence, response: await respond(flagged, sequence.prompt, { maxTokens }) });
}
