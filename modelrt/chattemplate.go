package modelrt

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"chatxray/modelrt/chat"
	"chatxray/pipeline"
)

// undated is the day that templates are told it is: the one that those of Llama name where they know none. A prompt does not depend on when it is
// asked.
var undated = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

// readChat reads the chat template of a bundle that has one, and renders the report's prompt where the bundle says it so.
func (p *prompt) readChat(b *Bundle) error {
	m := b.Manifest.Prompt
	if p.bos != "" {
		for i, id := range p.tokenizer.Around([]int32{-1}) {
			if id == -1 {
				p.before = p.tokenizer.Around(nil)[:i]
				break
			}
		}
	}
	if m.ChatTemplate == "" {
		return nil
	}
	source, err := os.ReadFile(b.path(m.ChatTemplate)) // its size was checked
	if err != nil {
		return err
	}
	if p.chat, err = chat.Compile(string(source)); err != nil {
		return fmt.Errorf("%s: %w", m.ChatTemplate, err)
	}
	if m.Instruction == "" {
		return nil
	}
	ask := pipeline.ChatMessage{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Text: m.Instruction}}}
	if p.images > 0 {
		ask.Parts = append([]pipeline.ChatPart{{Image: &pipeline.ChatImage{}}}, ask.Parts...)
	}
	if p.report, err = p.render([]pipeline.ChatMessage{ask}); err != nil {
		return fmt.Errorf("%s: %w", m.ChatTemplate, err)
	}
	return nil
}

// render writes a conversation up to where the answer begins, with the sentinel for each image. What others said spells no token in it, and no
// sentinel. Texts that stand side by side in a message are lines of one. Errors are those of chat.Template.Render: a conversation that the
// template refuses, and with which words.
func (p *prompt) render(messages []pipeline.ChatMessage) (string, error) {
	if p.chat == nil {
		return "", fmt.Errorf("%w: this bundle has no chat template: its manifest names no prompt.chat_template", pipeline.ErrUnsupported)
	}
	in := chat.Input{AddGenerationPrompt: true, BOS: p.bos, EOS: p.eos, Now: undated}
	var more []string
	if p.sentinel != "" {
		more = []string{p.sentinel}
	}
	images := 0
	for _, s := range messages {
		m := chat.Message{Role: string(s.Role), Parts: []chat.Part{}}
		var texts []string
		for _, part := range s.Parts {
			switch last := len(m.Parts) - 1; {
			case part.Image != nil:
				images++
				m.Parts = append(m.Parts, chat.Part{Image: true})
			case last >= 0 && !m.Parts[last].Image:
				texts[len(texts)-1] += "\n" + part.Text
			default:
				m.Parts, texts = append(m.Parts, chat.Part{}), append(texts, part.Text)
			}
		}
		texts = p.tokenizer.GuardParts(texts, more...)
		if !p.parts {
			m.Text, m.Parts = strings.Join(texts, "\n"), nil
		}
		for i := range m.Parts {
			if !m.Parts[i].Image {
				m.Parts[i].Text, texts = texts[0], texts[1:]
			}
		}
		in.Messages = append(in.Messages, m)
	}
	text, err := p.chat.Render(in)
	if err != nil {
		return "", err
	}
	if n := strings.Count(text, p.sentinel); p.sentinel != "" && n != images {
		return "", fmt.Errorf("%w: the chat template has places for %d images, the conversation has %d", pipeline.ErrUnsupported, n, images)
	}
	return text, nil
}

// conversation checks the messages of a request and renders them. The images stand in the text in their order.
func (m *Model) conversation(r pipeline.ChatRequest) (text string, images []*pipeline.ChatImage, err error) {
	wrong := func(err error) error { return &pipeline.ChatError{Param: "messages", Err: err} }
	if err := checkMessages(r.Messages, min(1, m.prompt.images), m.prompt.images); err != nil {
		return "", nil, wrong(err)
	}
	bytes, context := 0, m.bundle.Manifest.Decoder.MaxLength
	for _, s := range r.Messages {
		for _, p := range s.Parts {
			bytes += len(p.Text)
			if p.Image != nil {
				images = append(images, p.Image)
			}
		}
	}
	if bytes > longestToken*context { // not worth counting
		return "", nil, overflow("the messages have %d bytes, which cannot be %d tokens, the context of this model", bytes, context)
	}
	if text, err = m.prompt.render(r.Messages); err != nil {
		if errors.Is(err, pipeline.ErrInvalid) {
			err = fmt.Errorf("%w (the rule is that of this model's chat template)", err)
		}
		return "", nil, wrong(err)
	}
	return text, images, nil
}
