package remote

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"chatxray/pipeline"
)

// Scored is a token of a text and the natural logarithm of its probability after what stood before it.
type Scored struct {
	Text    string // may lack the white space before it
	Logprob float64
}

// ErrNoScores says that the endpoint answered, but not with the log-probabilities of the text.
var ErrNoScores = fmt.Errorf("%w: the endpoint gave no log-probabilities of the text", pipeline.ErrUnsupported)

// Score returns the tokens of text as the answer to a conversation, with their log-probabilities: vLLM's prompt_logprobs of a prompt that ends with
// the text. Nothing is written. Errors are those of Chat, and ErrNoScores.
func (c *Client) Score(ctx context.Context, asked []Message, text string) ([]Scored, error) {
	body := object{"model": c.cfg.Model, "messages": append(messages(asked), object{"role": pipeline.RoleAssistant, "content": text}),
		"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "add_generation_prompt": false, "continue_final_message": true}
	var answer struct {
		PromptLogprobs []map[string]struct {
			Logprob float64
			Decoded string `json:"decoded_token"`
		} `json:"prompt_logprobs"`
	}
	taken := false
	if err := c.attempts(ctx, &taken, func(ctx context.Context) error {
		return c.whole(ctx, http.MethodPost, "/chat/completions", body, &answer)
	}); err != nil {
		return nil, err
	}
	// The text is at the end. Tokens decoded one by one may lose the white space before them, so only what is seen is compared.
	left := seen(text)
	var back []Scored
	for i := len(answer.PromptLogprobs) - 1; i >= 0 && left != ""; i-- {
		if len(answer.PromptLogprobs[i]) != 1 { // the first token has none; more than one would leave open which it is
			return nil, ErrNoScores
		}
		for _, t := range answer.PromptLogprobs[i] {
			rest, ok := strings.CutSuffix(left, seen(t.Decoded))
			if !ok || t.Logprob > 0 {
				return nil, ErrNoScores
			}
			left = rest
			back = append(back, Scored{t.Decoded, t.Logprob})
		}
	}
	if left != "" || len(back) == 0 {
		return nil, ErrNoScores
	}
	out := make([]Scored, len(back))
	for i, t := range back {
		out[len(back)-1-i] = t
	}
	return out, nil
}

// Seen tells whether a character of a token is compared: it is neither white space nor SentencePiece's mark for it.
func Seen(r rune) bool { return !unicode.IsSpace(r) && r != '▁' }

// seen is a text without what is not compared.
func seen(s string) string {
	return strings.Map(func(r rune) rune {
		if !Seen(r) {
			return -1
		}
		return r
	}, s)
}
