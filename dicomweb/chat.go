package dicomweb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Chat answers questions about images.
type Chat interface {
	// Card tells who answers.
	Card() pipeline.ModelCard
	// Chat writes the next message of a conversation and hands it to emit, when that is not nil, while it is written.
	Chat(ctx context.Context, r pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error)
}

// Conversations keeps what was asked and answered about a study.
type Conversations interface {
	// Converse adds the messages that follow the first n of said to the conversation of an author about a study that consists of these n, or
	// begins one with all of them. It returns the conversation as it is kept. The error wraps pipeline.ErrNotFound when the study is gone.
	Converse(ctx context.Context, study, author string, said []pipeline.Said, n int) (pipeline.Conversation, error)
	// Conversations returns the conversations about a study, the oldest first; none is no error.
	Conversations(ctx context.Context, study string) ([]pipeline.Conversation, error)
}

// Talking is what conversations need; main hands it in.
type Talking struct {
	Chat     Chat   // nil where nothing is answered
	Adapters []Chat // the same model with other adapters, asked for by their names
	// Reference finds the image of a study, a series of it ("" for any) or one instance ("" for any), as it would be read. The error wraps
	// pipeline.ErrNotFound when there is nothing of it.
	Reference     func(ctx context.Context, study, series, sop string) (*pipeline.ChatImage, error)
	Conversations Conversations // nil where nothing is kept
}

// The paths of conversations: those of OpenAI's interface, and ours.
const (
	openAIRoot        = "/v1/"
	chatPath          = openAIRoot + "chat/completions"
	modelsPath        = openAIRoot + "models"
	modelPath         = modelsPath + "/:model"
	conversationsPath = studyPath + "/conversations"
)

// What conversations may take of this machine.
const (
	maxChats    = 512      // requests at the same time; beyond the model's own queue
	maxChatBody = 32 << 20 // bytes of one
)

// maxChatBytes is what the bodies of all requests under way may have.
var maxChatBytes int64 = 256 << 20

// draftWarning goes with every answer, and stands over conversations, whose answers name their models.
const draftWarning = "A draft by software, not reviewed by a radiologist."

// draftNotice stands in every answer of a model.
func draftNotice(card pipeline.ModelCard) string {
	notice := fmt.Sprintf("%s %s may never have been taught to answer questions, and answers poorly then: see its model card.", draftWarning, card.Ref.Name)
	if card.IntendedUse != "" {
		notice += " Its intended use: " + card.IntendedUse
	}
	return notice
}

// talking is what the server has for conversations.
type talking struct {
	chats   chan struct{} // one for each request
	bytes   atomic.Int64  // of the requests' bodies
	drawing chan struct{} // held by who decodes a picture
	started time.Time
}

func newTalking() talking {
	return talking{chats: make(chan struct{}, maxChats), drawing: make(chan struct{}, 1), started: time.Now()}
}

func (s *server) chatRoutes() []route {
	if s.Chat == nil && s.Part != Face {
		return nil
	}
	t := []route{
		{"POST", chatPath, RoleRead, "Answer a question about an image (the interface of OpenAI)", nil, asJSON, asChat, nil, s.chat},
		{"GET", modelsPath, RoleRead, "The model that answers (the interface of OpenAI)", nil, nil, asJSON, nil, s.models},
		{"GET", modelPath, RoleRead, "One model (the interface of OpenAI)", nil, nil, asJSON, nil, s.model},
	}
	if s.Conversations != nil {
		t = append(t, route{"GET", conversationsPath, RoleRead, "What was asked and answered about a study", nil, nil, asJSON, nil, s.conversations})
	}
	return t
}

// asChat are the forms of an answer: whole, or in pieces.
var asChat = []string{"application/json", "text/event-stream"}

// chat answers POST /v1/chat/completions.
func (s *server) chat(c *gin.Context) error {
	select {
	case s.talking.chats <- struct{}{}:
		defer func() { <-s.talking.chats }()
	default:
		return fmt.Errorf("%w: %d conversations are under way; try again later", pipeline.ErrBusy, maxChats)
	}
	call, release, err := s.readCall(c)
	defer release()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(c.Request.Context(), call.timeout, lateAnswer(call.timeout))
	defer cancel()
	out := answering{id: "chatcmpl-" + randomID(), created: time.Now().Unix(), model: call.model, card: call.chat.Card(), seed: call.request.Sampling.Seed}
	if call.stream {
		s.chatStream(ctx, c, call, &out)
		return nil
	}
	a, err := call.chat.Chat(ctx, call.request, nil)
	if err != nil {
		return err
	}
	out.conversations = s.keep(c, call, a)
	s.draft(c)
	c.JSON(http.StatusOK, out.whole(a))
	return nil
}

// lateAnswer ends an answer that takes longer than it may.
type lateAnswer time.Duration

func (l lateAnswer) Error() string {
	return fmt.Sprintf("the answer was not finished after %v, which is what it may take (timeout)", time.Duration(l))
}

func (lateAnswer) Unwrap() error { return context.DeadlineExceeded }

// draft marks an answer.
func (s *server) draft(c *gin.Context) {
	c.Header("Cache-Control", "no-store")
	c.Header("Warning", `299 chatxray "`+draftWarning+`"`)
}

// chatStream answers in pieces (Server-Sent Events, WHATWG HTML section 9.2). The status goes out with the first piece, so that what is wrong before
// has one of its own.
func (s *server) chatStream(ctx context.Context, c *gin.Context, call *chatCall, out *answering) {
	begun := false
	send := func(v any) error {
		if !begun {
			begun = true
			s.draft(c)
			c.Header("Content-Type", "text/event-stream; charset=utf-8")
			c.Header("X-Accel-Buffering", "no") // nginx would collect the pieces
			c.Status(http.StatusOK)
			if err := event(c, out.piece(pipeline.ChatPiece{}, nil, call.usage)); err != nil {
				return err
			}
		}
		return event(c, v)
	}
	a, err := call.chat.Chat(ctx, call.request, func(p pipeline.ChatPiece) error { return send(out.piece(p, nil, call.usage)) })
	switch {
	case err != nil && !begun:
		s.refuse(c, err)
		return
	case err != nil:
		_ = c.Error(quiet(err))
		if c.Request.Context().Err() == nil {
			_ = event(c, chatFault(err).body())
		}
		return
	}
	out.conversations = s.keep(c, call, a)
	err = send(out.piece(pipeline.ChatPiece{}, a, call.usage))
	if call.usage && err == nil {
		err = event(c, out.usage(a))
	}
	if err == nil {
		err = event(c, json.RawMessage("[DONE]"))
	}
	if err != nil {
		_ = c.Error(quiet(err))
	}
}

// event writes one event. The error says that the client is gone.
func event(c *gin.Context, v any) error {
	b, ok := v.(json.RawMessage)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(c.Writer, "data: %s\n\n", b); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	c.Writer.Flush()
	return nil
}

// keep keeps what was asked and answered with each study that it is about, and returns the conversations' names by study.
func (s *server) keep(c *gin.Context, call *chatCall, a *pipeline.ChatAnswer) map[string]string {
	if s.Conversations == nil || len(call.studies) == 0 {
		return nil
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	said := append(call.said, pipeline.Said{Role: pipeline.RoleAssistant, Text: a.Text, Time: &now, Answer: &pipeline.SaidAnswer{
		Draft: true, Model: a.Model, Language: a.Language, Inputs: a.Inputs, End: a.End, Sampling: call.request.Sampling, MaxTokens: call.request.MaxTokens,
	}})
	kept := map[string]string{}
	for _, study := range call.studies {
		// Who asked may go away now; what was answered is kept.
		k, err := s.Conversations.Converse(context.WithoutCancel(c.Request.Context()), study, c.GetString(principalKey), said, len(call.said)-1)
		if err != nil {
			s.Log.Error().Str("study", study).Err(err).Msg("a conversation was not kept")
			continue
		}
		kept[study] = k.ID
	}
	return kept
}

// models answers GET /v1/models.
func (s *server) models(c *gin.Context) error {
	var all []object
	for _, m := range s.chats() {
		all = append(all, s.modelObject(m.Card()))
	}
	c.JSON(http.StatusOK, object{"object": "list", "data": all})
	return nil
}

// chats are all that answer.
func (s *server) chats() []Chat { return append([]Chat{s.Chat}, s.Adapters...) }

// chatNames are the names that they are asked for by.
func (s *server) chatNames() (names []string) {
	for _, m := range s.chats() {
		names = append(names, m.Card().Ref.Name)
	}
	return names
}

// chatCalled finds who answers by the name.
func (s *server) chatCalled(name string) (Chat, error) {
	names := s.chatNames()
	if i := slices.Index(names, name); i >= 0 {
		return s.chats()[i], nil
	}
	return nil, &pipeline.ChatError{Param: "model", Code: "model_not_found",
		Err: fmt.Errorf("%w: there is no model %.100q; this service has %s", pipeline.ErrNotFound, name, inQuotes(names))}
}

func inQuotes(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, strconv.Quote(n))
	}
	return strings.Join(all, ", ")
}

// model answers GET /v1/models/{model}.
func (s *server) model(c *gin.Context) error {
	m, err := s.chatCalled(c.Param("model"))
	if err == nil {
		c.JSON(http.StatusOK, s.modelObject(m.Card()))
	}
	return err
}

func (s *server) modelObject(card pipeline.ModelCard) object {
	return object{
		"id": card.Ref.Name, "object": "model", "created": s.talking.started.Unix(), "owned_by": "chatxray",
		"chatxray": object{"notice": draftNotice(card), "version": card.Ref.Version, "digest": card.Ref.Digest, "languages": card.Languages, "context": card.Context,
			"images": card.Images, "image_tokens": card.ImageTokens, "intended_use": card.IntendedUse, "license": card.License},
	}
}

// conversations answers GET {study}/conversations.
func (s *server) conversations(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	if _, err := s.store.Instances(c.Request.Context(), study, "", ""); err != nil {
		return err
	}
	list, err := s.Conversations.Conversations(c.Request.Context(), study)
	if err != nil {
		return err
	}
	if list == nil {
		list = []pipeline.Conversation{}
	}
	c.Header("Cache-Control", "no-store")
	c.JSON(http.StatusOK, object{"schema": conversationsSchema, "study_instance_uid": study, "notice": draftWarning, "conversations": list})
	return nil
}

// conversationsSchema names the form of the answer above, and its version.
const conversationsSchema = "chatxray.conversations/1"

func randomID() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// ofOpenAI tells whether a request is for OpenAI's interface, whose errors have a form of their own.
func ofOpenAI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, openAIRoot) }
