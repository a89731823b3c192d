package pipeline

import (
	"context"
	"encoding/json"
	"time"
)

// ChatRole is who says a message.
type ChatRole string

// The roles.
const (
	RoleSystem    ChatRole = "system"
	RoleUser      ChatRole = "user"
	RoleAssistant ChatRole = "assistant"
)

// ChatMessage is one turn of a conversation.
type ChatMessage struct {
	Role  ChatRole
	Parts []ChatPart
}

// ChatPart is a piece of a message: a text, or an image where Image is not nil.
type ChatPart struct {
	Text  string
	Image *ChatImage
}

// ChatImage is an image that somebody asks about.
type ChatImage struct {
	Name string // what errors call it; no patient data
	// Content names what the image is made of: images of the same content are the same image.
	Content Digest
	// Load decodes the image. It is called only where the model does not remember the content.
	Load func(ctx context.Context) (*Image, error)
}

// ChatRequest asks for the next message of a conversation. The last message is the user's.
type ChatRequest struct {
	Messages  []ChatMessage
	Language  string // RFC 5646, one of the model's; empty is its first
	Sampling  Sampling
	MaxTokens int             // of the answer; 0 is what the model gives a report, as far as there is room
	Stop      []string        // the answer ends before the first of them
	Logprobs  bool            // tell the log-probability of each token
	Top       int             // and of so many likeliest ones in its place
	Schema    json.RawMessage // JSON Schema that the answer must meet; nil for free text
	Evidence  bool            // weigh each token under other images; for the prompt of a report only. Tells log-probabilities, too
}

// ChatPiece is a part of an answer while it is written: whole characters, and the tokens that begin in it.
type ChatPiece struct {
	Text   string
	Tokens []ChatToken // empty unless ChatRequest.Logprobs
}

// ChatToken is a token of an answer and the natural logarithm of its probability, the model's own before masks and sampling.
type ChatToken struct {
	Text    []byte // may begin or end within a character
	Logprob float64
	Top     []ChatToken // the likeliest in its place that the language and the form allow, the likeliest first
}

// ChatEnd is why an answer ended.
type ChatEnd string

// The ends.
const (
	EndStop   ChatEnd = "stop"   // the model ended it, or a stop string came
	EndLength ChatEnd = "length" // it has as many tokens as it may have
)

// ChatAnswer is the next message of a conversation, a draft by software.
type ChatAnswer struct {
	ChatPiece
	End      ChatEnd
	Prompt   int // tokens, places of images among them
	Reused   int // of these: what the model still knew from an earlier turn
	Written  int // tokens of the answer
	Model    ModelRef
	Language string
	Inputs   []InputRef // the DICOM images that it is about
	Spent    time.Duration
	Evidence *ChatEvidence // nil unless ChatRequest.Evidence
	Boxes    []Box         // that the model drew, where it does
}

// Box is a box that a model drew on an image. Nothing was measured about how well it lies.
type Box struct {
	Image int    `json:"image"` // of the conversation's, counted from 0
	Label string `json:"label"` // what it is around, in the model's words; may be empty
	// Corners in pixels of the image as it is stored, continuous: the top left corner of the top left pixel is 0, 0.
	Left   float64 `json:"x0"`
	Top    float64 `json:"y0"`
	Right  float64 `json:"x1"`
	Bottom float64 `json:"y1"`
}

// ChatEvidence is the log-probabilities of an answer's tokens after other images: one row for each other patient's image, and the blank one's. It is
// what Evidence is summed up of.
type ChatEvidence struct {
	Decoys [][]float64 `json:"decoys"`
	Blank  []float64   `json:"blank"`
}

// ModelCard is what somebody should know before asking a model.
type ModelCard struct {
	Ref         ModelRef
	Languages   []string // that it can answer in
	Context     int      // tokens of prompt and answer
	Images      int      // that a conversation may have, and at least one; 0 for a model of text
	ImageTokens int      // places of the context that an image takes
	IntendedUse string
	License     string
}

// Conversation is what was asked and answered about a study.
type Conversation struct {
	ID               string    `json:"id"`
	StudyInstanceUID string    `json:"study_instance_uid"`
	Author           string    `json:"author"` // as in the access log: token:NAME, user:NAME, oidc:SUBJECT, certificate:NAME, anybody
	Started          time.Time `json:"started"`
	Messages         []Said    `json:"messages"`
}

// Said is one message of a Conversation.
type Said struct {
	Role   ChatRole    `json:"role"`
	Text   string      `json:"text"`
	Images []string    `json:"images,omitempty"` // dicom: references, or sha256: sums of pictures that came with the request
	Answer *SaidAnswer `json:"answer,omitempty"` // of messages that this service wrote; other assistant messages came with a request
	Time   *time.Time  `json:"time,omitempty"`   // nil for messages that came with a request before the last one
}

// SaidAnswer is how an answer came about.
type SaidAnswer struct {
	Draft     bool       `json:"draft"` // always
	Model     ModelRef   `json:"model"`
	Language  string     `json:"language"`
	Inputs    []InputRef `json:"inputs,omitempty"`
	End       ChatEnd    `json:"finish_reason"`
	Sampling  Sampling   `json:"sampling"`
	MaxTokens int        `json:"max_tokens,omitempty"`
}

// ChatError says which part of a ChatRequest is wrong, as clients of OpenAI's interface name it.
type ChatError struct {
	Param string // "messages", "response_format", ...; empty for none
	Code  string // "context_length_exceeded", ...; empty for none
	Err   error  // wraps a sentinel
}

// Error is the text of Err.
func (e *ChatError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ChatError) Unwrap() error { return e.Err }
