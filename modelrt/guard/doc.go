// Package guard says which token may come next: it sets the logits of all others to -Inf before one is chosen.
//
// A Guard keeps a text within the scripts of its languages; a Grammar, made of a JSON Schema or of rules, keeps it within a form (and
// within the scripts too). Both are automata over bytes, because a token is any piece of bytes: part of a character, several
// characters, or both. Both never lead into a dead end: a token is allowed only if other tokens can finish what it began.
//
// The package is plain Go and knows of models only what a vocabulary spells. modelrt's decode loop calls it.
package guard

// Constraint follows one text, token by token. It is for one goroutine at a time; what it was made of may be shared.
type Constraint interface {
	// Mask sets the logits of every token that may not come next to -Inf. Of several constraints each may mask the same logits.
	// Errors: pipeline.ErrUnsupported where a grammar is too ambiguous to be followed.
	Mask(logits []float32) error
	// Accept takes the token that was chosen. Errors: pipeline.ErrInvalid for one that Mask would have masked; nothing changes then.
	Accept(id int32) error
	// Done says whether the text may end here.
	Done() bool
}
