// Package token turns text into the ids of a model's vocabulary and back, as the software that the model was trained with does it:
// tokenizer.json of Hugging Face tokenizers, tokenizer.model of SentencePiece, and *.tiktoken files. It is plain Go: no cgo, no network.
package token
