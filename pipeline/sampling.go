package pipeline

import (
	"errors"
	"fmt"
)

// Sampling says how a token is chosen of the logits. The steps and their order are those of Hugging Face's generate: repetition penalty,
// temperature, top-k, top-p, min-p, then one draw from what is left.
type Sampling struct {
	// Temperature divides the logits; 0 takes the likeliest token (after the penalty), of equals the first, and draws nothing.
	Temperature float64 `json:"temperature"`
	// TopK keeps the tokens that are as likely as the k-th; 0 keeps all.
	TopK int `json:"top_k"`
	// TopP keeps the likeliest tokens until their probabilities reach it, at least one; 1 keeps all.
	TopP float64 `json:"top_p"`
	// MinP keeps the tokens at least this times as likely as the likeliest; 0 keeps all.
	MinP float64 `json:"min_p"`
	// RepetitionPenalty divides positive logits of tokens that were there before, and multiplies negative ones; 1 is none.
	RepetitionPenalty float64 `json:"repetition_penalty"`
	// Seed makes the draws the same again: they come from a PCG generator (math/rand/v2) of this seed.
	Seed uint64 `json:"seed"`
}

// DefaultSampling takes the likeliest token.
func DefaultSampling() Sampling { return Sampling{TopP: 1, RepetitionPenalty: 1} }

// Check returns what is wrong, all of it. Each error wraps ErrInvalid.
func (s Sampling) Check() error {
	var errs []error
	within := func(name string, v, least, most float64) {
		if !(v >= least && v <= most) {
			errs = append(errs, fmt.Errorf("%w %s: %v is not from %v to %v", ErrInvalid, name, v, least, most))
		}
	}
	within("temperature", s.Temperature, 0, 100)
	if s.TopK < 0 {
		errs = append(errs, fmt.Errorf("%w top_k: %d is negative", ErrInvalid, s.TopK))
	}
	within("top_p", s.TopP, 0, 1)
	within("min_p", s.MinP, 0, 1)
	within("repetition_penalty", s.RepetitionPenalty, 0.01, 100)
	return errors.Join(errs...)
}
