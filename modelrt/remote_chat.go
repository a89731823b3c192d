package modelrt

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"chatxray/modelrt/remote"
	"chatxray/pipeline"
)

// sentPicture is what is remembered of an image: what is sent of it, and what it was made of.
type sentPicture struct {
	png   []byte
	input *pipeline.InputRef // nil for a picture that is no DICOM object
}

// Card tells who answers.
func (r *Remote) Card() pipeline.ModelCard {
	f := r.bundle.Manifest
	return pipeline.ModelCard{Ref: r.Ref(), Languages: f.Languages, Context: f.Remote.Context, Images: f.Remote.Images, IntendedUse: f.IntendedUse, License: f.License}
}

// Chat writes the next message of a conversation, as Model.Chat does. Sampling, stop strings and a form are the endpoint's to keep; of a form it is only looked
// at whether the answer is JSON. What the language does not allow ends the answer before it is handed on. Errors are those of Model.Chat, and ErrUnavailable.
func (r *Remote) Chat(ctx context.Context, q pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error) {
	f := r.bundle.Manifest
	if err := checkAsked(q); err != nil {
		return nil, err
	}
	if err := checkMessages(q.Messages, 0, f.Remote.Images); err != nil {
		return nil, &pipeline.ChatError{Param: "messages", Err: err}
	}
	language, err := f.Language(cmp.Or(q.Language, r.language))
	if err != nil {
		return nil, &pipeline.ChatError{Param: "language", Err: err}
	}
	if q.Evidence {
		return nil, &pipeline.ChatError{Param: "evidence", Err: fmt.Errorf("%w: evidence of answers; the model is at another endpoint", pipeline.ErrUnsupported)}
	}
	a := &pipeline.ChatAnswer{Language: language}
	request := remote.Request{Sampling: q.Sampling, MaxTokens: cmp.Or(q.MaxTokens, f.Generation.MaxNewTokens), Stop: q.Stop,
		Logprobs: q.Logprobs, Top: q.Top, Schema: q.Schema, Language: language}
	for _, m := range q.Messages {
		said := remote.Message{Role: m.Role}
		for _, p := range m.Parts {
			if p.Image == nil {
				said.Parts = append(said.Parts, remote.Part{Text: p.Text})
				continue
			}
			picture, err := r.pictureOf(ctx, p.Image)
			if err != nil {
				return nil, err
			}
			said.Parts = append(said.Parts, remote.Part{PNG: picture.png})
			if picture.input != nil {
				a.Inputs = append(a.Inputs, *picture.input)
			}
		}
		request.Messages = append(request.Messages, said)
	}
	identity, err := r.client.Identify(ctx)
	if err != nil {
		return nil, fmt.Errorf("answering with %s: %w", f.Name, err)
	}
	got, err := r.client.Chat(ctx, request, r.within(language, emit))
	if err != nil {
		return nil, fmt.Errorf("answering with %s: %w", f.Name, err)
	}
	r.answered(got)
	if q.Schema != nil && got.End == pipeline.EndStop && !json.Valid([]byte(got.Text)) {
		return nil, fmt.Errorf("answering with %s: %w: its answer is no JSON, though a form was asked for", f.Name, pipeline.ErrModel)
	}
	a.ChatPiece, a.End, a.Model, a.Spent = got.ChatPiece, got.End, r.ref(identity, got), got.Spent
	a.Prompt, a.Reused, a.Written = got.Prompt, got.Reused, got.Written
	return a, nil
}

// Opinion writes what the model thinks of the wording of a draft, in one of its languages (empty is that of the reports): it is asked what remote.prompt says, and the
// draft. It sees no image. Errors are those of Chat.
func (r *Remote) Opinion(ctx context.Context, draft, language string) (*pipeline.ChatAnswer, error) {
	f := r.bundle.Manifest
	if err := f.CanOpine(cmp.Or(language, r.language)); err != nil {
		return nil, err
	}
	return r.Chat(ctx, pipeline.ChatRequest{Language: language, Sampling: pipeline.DefaultSampling(), Stop: f.Generation.StopStrings,
		Messages: []pipeline.ChatMessage{{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Text: f.Remote.Prompt}, {Text: draft}}}}}, nil)
}

// pictureOf returns what is sent of an image, or what is remembered of one with the same content.
func (r *Remote) pictureOf(ctx context.Context, i *pipeline.ChatImage) (*sentPicture, error) {
	r.mu.Lock()
	p, ok := r.pictures.get(i.Content)
	r.mu.Unlock()
	if ok {
		return p, nil
	}
	img, err := i.Load(ctx)
	if err != nil {
		return nil, err
	}
	p = &sentPicture{}
	if p.png, err = r.Preview(img); err != nil {
		return nil, fmt.Errorf("%s: %w", i.Name, err)
	}
	if img.Instance != nil {
		ref := pipeline.InputOf(img.Instance, img.Frame)
		ref.ViewByModel = img.ViewUnknown
		p.input = &ref
	}
	r.mu.Lock()
	r.pictures.put(i.Content, p, len(p.png), keptSights)
	r.mu.Unlock()
	return p, nil
}
