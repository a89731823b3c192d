package dicomweb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatxray/pipeline"
)

// Limits of a conversation.
const (
	maxMessages = 256
	maxPieces   = 64 // of a message
)

// readMessages reads the messages and finds their images.
func (s *server) readMessages(ctx context.Context, call *chatCall, raw json.RawMessage) error {
	var list []json.RawMessage
	if raw == nil || json.Unmarshal(raw, &list) != nil {
		return wrong("messages", "is no list of messages")
	}
	if len(list) == 0 || len(list) > maxMessages {
		return wrong("messages", "has %d messages; this service takes 1 to %d", len(list), maxMessages)
	}
	images, most := 0, call.chat.Card().Images
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, v := range list {
		path := fmt.Sprintf("messages[%d]", i)
		m, parts, err := readMessage(v, path)
		if err != nil {
			return err
		}
		said := pipeline.Said{Role: m.Role}
		if i == len(list)-1 {
			said.Time = &now
		}
		for k, p := range parts {
			if p.url == "" {
				m.Parts = append(m.Parts, pipeline.ChatPart{Text: p.text})
				if said.Text != "" {
					said.Text += "\n"
				}
				said.Text += p.text
				continue
			}
			if images++; images > most {
				return &pipeline.ChatError{Param: "messages", Code: "too_many_images",
					Err: fmt.Errorf("%w: the messages have more than %d images; that is the most that this model answers about", pipeline.ErrInvalid, most)}
			}
			at := fmt.Sprintf("%s.content[%d].image_url.url", path, k)
			img, name, study, err := s.imageOf(ctx, at, p.url)
			if err != nil {
				return &pipeline.ChatError{Param: at, Err: err}
			}
			if study != "" && !slices.Contains(call.studies, study) {
				call.studies = append(call.studies, study)
			}
			m.Parts = append(m.Parts, pipeline.ChatPart{Image: img})
			said.Images = append(said.Images, name)
		}
		call.request.Messages, call.said = append(call.request.Messages, m), append(call.said, said)
	}
	return nil
}

// askedPart is a piece of a message: a text, or an image where it has a URL.
type askedPart struct{ text, url string }

func readMessage(raw json.RawMessage, path string) (m pipeline.ChatMessage, parts []askedPart, err error) {
	g, err := objectOf(raw, path)
	if err != nil {
		return m, nil, err
	}
	role := ""
	if err := errors.Join(g.take("role", "a string", &role), g.take("name", "a string", new(string))); err != nil {
		return m, nil, err
	}
	switch role {
	case "system", "developer":
		m.Role = pipeline.RoleSystem
	case "user", "assistant":
		m.Role = pipeline.ChatRole(role)
	default:
		return m, nil, wrong(path+".role", "is none of system, developer, user, assistant")
	}
	if role == "assistant" { // what a client has of an answer and sends back
		for _, key := range []string{"refusal", "audio", "function_call", "tool_calls", "annotations"} {
			if err := g.only(key, "this model knows text and images only", "[]"); err != nil {
				return m, nil, err
			}
		}
	}
	content := g.raw("content")
	if err := g.end(); err != nil {
		return m, nil, err
	}
	var text string
	if content != nil && json.Unmarshal(content, &text) == nil {
		return m, []askedPart{{text: text}}, nil
	}
	var list []json.RawMessage
	if content == nil || json.Unmarshal(content, &list) != nil {
		return m, nil, wrong(path+".content", "is neither a string nor a list of parts")
	}
	if len(list) == 0 || len(list) > maxPieces {
		return m, nil, wrong(path+".content", "has %d parts; a message has 1 to %d", len(list), maxPieces)
	}
	for i, v := range list {
		p, err := readPart(v, fmt.Sprintf("%s.content[%d]", path, i), m.Role)
		if err != nil {
			return m, nil, err
		}
		parts = append(parts, p)
	}
	return m, parts, nil
}

func readPart(raw json.RawMessage, path string, role pipeline.ChatRole) (p askedPart, err error) {
	g, err := objectOf(raw, path)
	if err != nil {
		return p, err
	}
	kind := ""
	if err := g.take("type", "a string", &kind); err != nil {
		return p, err
	}
	switch kind {
	case "text":
		v := g.raw("text")
		if v == nil || json.Unmarshal(v, &p.text) != nil {
			return p, wrong(path+".text", "is not a string")
		}
	case "image_url":
		if role != pipeline.RoleUser {
			return p, wrong(path+".type", "is image_url, but only the user's messages may have an image")
		}
		o, err := objectOf(g.raw("image_url"), path+".image_url")
		if err != nil {
			return p, err
		}
		if err := errors.Join(o.take("url", "a string", &p.url), o.take("detail", "a string", new(string)), o.end()); err != nil {
			return p, err
		}
		if p.url == "" {
			return p, wrong(path+".image_url.url", "is missing")
		}
	default:
		return p, wrong(path+".type", "is none of text, image_url")
	}
	return p, g.end()
}
