import { BYTE_SPECIALS } from "../tokenizer.js";

/**
 * The character that stands for each byte in byte-level vocabularies (GPT-2's `bytes_to_unicode`): printable
 * Latin-1 stands for itself, the other 68 bytes for U+0100 and on.
 */
export function byteCharacters(): string[] {
  const isPrintable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : 0x100 + others++),
  );
}

/**
 * The byte tokenizer as the files that Hugging Face's libraries load: a byte-level BPE without merges, whose
 * post-processor puts `<bos>` first.
 */
export function byteTokenizerFiles(): { tokenizerJson: object; tokenizerConfig: object } {
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const bos = special(BYTE_SPECIALS.bos, "<bos>");
  const eos = special(BYTE_SPECIALS.eos, "<eos>");
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const text = (id: string, type: number) => ({ Sequence: { id, type_id: type } });
  const first = (type: number) => ({ SpecialToken: { id: bos.content, type_id: type } });

  const tokenizerJson = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [bos, eos],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [first(0), text("A", 0)],
      pair: [first(0), text("A", 0), first(1), text("B", 1)],
      special_tokens: { [bos.content]: { id: bos.content, ids: [bos.id], tokens: [bos.content] } },
    },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(byteCharacters().map((character, byte) => [character, byte])),
      merges: [],
    },
  };
  const tokenizerConfig = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: bos.content,
    eos_token: eos.content,
    clean_up_tokenization_spaces: false,
    model_max_length: 1e30,
  };
  return { tokenizerJson, tokenizerConfig };
}
