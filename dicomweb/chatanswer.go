package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// answering makes the objects of one answer, as OpenAI's interface has them. What is ours stands in "chatxray".
type answering struct {
	id            string
	created       int64
	model         string
	card          pipeline.ModelCard
	seed          uint64
	conversations map[string]string // by study
}

func (o *answering) frame(kind string) object {
	return object{"id": o.id, "object": kind, "created": o.created, "model": o.model, "system_fingerprint": "fp_" + o.card.Ref.Digest.String()[:16]}
}

func (o *answering) ours(a *pipeline.ChatAnswer) object {
	own := object{"draft": true, "notice": draftNotice(o.card), "model": a.Model, "seed": int64(o.seed)}
	if a.Evidence != nil {
		own["evidence"] = a.Evidence
	}
	if len(a.Boxes) > 0 {
		own["boxes"] = a.Boxes
	}
	if len(o.conversations) > 0 {
		own["conversations"] = o.conversations
	}
	return own
}

// whole is an answer in one piece.
func (o *answering) whole(a *pipeline.ChatAnswer) object {
	v := o.frame("chat.completion")
	v["choices"] = []object{{"index": 0, "message": object{"role": "assistant", "content": a.Text, "refusal": nil},
		"logprobs": logprobs(a.Tokens), "finish_reason": a.End}}
	v["usage"] = usage(a)
	v["chatxray"] = o.ours(a)
	return v
}

// piece is a part of an answer: the first where it is empty, the last where the whole answer is given.
func (o *answering) piece(p pipeline.ChatPiece, a *pipeline.ChatAnswer, withUsage bool) object {
	v, delta, reason := o.frame("chat.completion.chunk"), object{}, any(nil)
	switch {
	case a != nil:
		reason = a.End
		v["chatxray"] = o.ours(a)
	case p.Text == "":
		delta = object{"role": "assistant", "content": "", "refusal": nil}
	default:
		delta["content"] = p.Text
	}
	v["choices"] = []object{{"index": 0, "delta": delta, "logprobs": logprobs(p.Tokens), "finish_reason": reason}}
	if withUsage {
		v["usage"] = nil
	}
	return v
}

// usage is the piece that tells what an answer took.
func (o *answering) usage(a *pipeline.ChatAnswer) object {
	v := o.frame("chat.completion.chunk")
	v["choices"], v["usage"] = []object{}, usage(a)
	return v
}

func usage(a *pipeline.ChatAnswer) object {
	return object{"prompt_tokens": a.Prompt, "completion_tokens": a.Written, "total_tokens": a.Prompt + a.Written,
		"prompt_tokens_details": object{"cached_tokens": a.Reused}}
}

func logprobs(tokens []pipeline.ChatToken) any {
	if len(tokens) == 0 {
		return nil
	}
	list := make([]object, len(tokens))
	for i, t := range tokens {
		top := make([]object, len(t.Top))
		for j, u := range t.Top {
			top[j] = logprob(u)
		}
		list[i] = logprob(t)
		list[i]["top_logprobs"] = top
	}
	return object{"content": list, "refusal": nil}
}

func logprob(t pipeline.ChatToken) object {
	bytes := make([]int, len(t.Text))
	for i, b := range t.Text {
		bytes[i] = int(b)
	}
	return object{"token": string(t.Text), "logprob": t.Logprob, "bytes": bytes} // JSON has U+FFFD for what is no whole character
}

// fault is an error as OpenAI's interface has it.
type fault struct {
	status            int
	kind, code, param string
	message           string
}

func (f fault) body() object {
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return object{"error": object{"message": f.message, "type": f.kind, "code": null(f.code), "param": null(f.param)}}
}

// chatWire is the table from errors to the wire of OpenAI's interface.
var chatWire = []struct {
	err        error
	status     int
	kind, code string
}{
	{errUnauthorized, http.StatusUnauthorized, "authentication_error", "invalid_api_key"},
	{errForbidden, http.StatusForbidden, "permission_error", "insufficient_permissions"},
	{errTooMany, http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded"},
	{pipeline.ErrBusy, http.StatusTooManyRequests, "rate_limit_error", "busy"},
	{errTooLarge, http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large"},
	{errMediaType, http.StatusUnsupportedMediaType, "invalid_request_error", "unsupported_media_type"},
	{pipeline.ErrMissingPart, http.StatusServiceUnavailable, "server_error", "missing_part"},
	{pipeline.ErrUnavailable, http.StatusServiceUnavailable, "server_error", "endpoint_unavailable"},
	{pipeline.ErrNotFound, http.StatusNotFound, "invalid_request_error", "not_found"},
	{pipeline.ErrNotImage, http.StatusBadRequest, "invalid_request_error", "image_not_read"},
	{pipeline.ErrUnsupported, http.StatusBadRequest, "invalid_request_error", "unsupported_value"},
	{pipeline.ErrUnknown, http.StatusBadRequest, "invalid_request_error", "unsupported_value"},
	{pipeline.ErrInvalid, http.StatusBadRequest, "invalid_request_error", "invalid_value"},
	{errBroken, http.StatusBadRequest, "invalid_request_error", "upload_broke_off"},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout, "invalid_request_error", "timeout"},
	{context.DeadlineExceeded, http.StatusRequestTimeout, "invalid_request_error", "timeout"},
	{context.Canceled, http.StatusBadRequest, "invalid_request_error", "cancelled"},
}

// chatFault tells an error. The text of one that has no entry in the table stays in the log.
func chatFault(err error) fault {
	f := fault{status: http.StatusInternalServerError, kind: "server_error", code: "failed", message: "the service failed; its log says why"}
	if errors.Is(err, pipeline.ErrModel) {
		f.message = "the model failed: it gave nothing that may leave"
	}
	for _, w := range chatWire {
		if errors.Is(err, w.err) {
			f = fault{w.status, w.kind, w.code, "", err.Error()}
			if late := lateAnswer(0); errors.As(err, &late) { // whatever it was late for
				f.message = late.Error()
			} else if w.err == context.DeadlineExceeded {
				f.message = "the answer took longer than it may"
			}
			if w.err == pipeline.ErrUnavailable { // addresses of this network may stand there
				f.message = "the endpoint of the model does not answer; try again later"
			}
			break
		}
	}
	if about := (*pipeline.ChatError)(nil); errors.As(err, &about) {
		f.param = about.Param
		if about.Code != "" {
			f.code = about.Code
		}
	}
	return f
}

// quiet is an error as the log has it: what is wrong in a request may be about a patient, so only its kind is told.
func quiet(err error) error {
	f := chatFault(err)
	if f.status >= http.StatusInternalServerError {
		return err
	}
	return fmt.Errorf("%s: %s", f.kind, f.code)
}

// refuseChat answers with an error in the form of OpenAI's interface.
func (s *server) refuseChat(c *gin.Context, err error) {
	f := chatFault(err)
	if f.code == "busy" || f.status == http.StatusServiceUnavailable {
		c.Header("Retry-After", retryAfter)
	}
	s.deny(c, err)
	_ = c.Error(quiet(err))
	c.Abort()
	c.JSON(f.status, f.body())
}
