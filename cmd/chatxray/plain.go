package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"chatxray/modelrt"
	"chatxray/pipeline"
)

// plainPrompts ask for a report in words for the patient, by language, where the bundle has no words of its own for it.
var plainPrompts = map[string]string{
	"en": "Explain this chest radiograph to the patient in plain words, without medical terms.",
	"de": "Erkläre der Patientin oder dem Patienten diese Röntgenaufnahme des Brustkorbs in einfachen Worten, ohne Fachbegriffe.",
	"fr": "Explique cette radiographie du thorax au patient avec des mots simples, sans termes médicaux.",
	"es": "Explica esta radiografía de tórax al paciente con palabras sencillas, sin términos médicos.",
	"zh": "请用通俗易懂的语言向患者解释这张胸片，不要使用医学术语。",
}

// plainPrompt returns the words in a language. Errors: ErrUnsupported where neither the bundle nor this program has any.
func plainPrompt(m *modelrt.Manifest, language string) (string, error) {
	if own := m.Wording(language).Plain; own != "" {
		return own, nil
	}
	base, _, _ := strings.Cut(language, "-")
	if ours := plainPrompts[strings.ToLower(base)]; ours != "" {
		return ours, nil
	}
	return "", fmt.Errorf("%w: bundle %s has no words that ask for a report for the patient in %q (prompts.%s.plain)", pipeline.ErrUnsupported, m.Name, language, language)
}

// plainNotice stands with every such report.
func plainNotice(m *modelrt.Manifest) string {
	return fmt.Sprintf("Not for the patient yet: an unreviewed draft by software, without evidence for its sentences. %s may never have been taught to write plainly: see its model card. Its intended use: %s",
		m.Name, m.IntendedUse)
}

// canPlain says why plain would be refused in a language, whatever the image.
func canPlain(m *modelrt.Manifest, language string) error {
	_, err := plainPrompt(m, language)
	if err == nil && m.Kind != modelrt.KindRemote && m.Prompt.ChatTemplate == "" {
		err = fmt.Errorf("%w: bundle %s has no conversations (prompt.chat_template)", pipeline.ErrUnsupported, m.Name)
	}
	return err
}

// plainReport is a report in words for the patient. It is no part of the reading and enters no document.
type plainReport struct {
	Draft    bool             `json:"draft"` // always
	Notice   string           `json:"notice"`
	Prompt   string           `json:"prompt"`
	Language string           `json:"language"`
	Text     string           `json:"text"`
	End      pipeline.ChatEnd `json:"finish_reason"`
}

// plain asks the model to explain the image that was read, in the language of the reports.
func (e *engine) plain(ctx context.Context, img *pipeline.Image) (*plainReport, error) {
	prompt, err := plainPrompt(e.model.Bundle().Manifest, e.model.Language())
	if err != nil {
		return nil, err
	}
	a, err := e.model.Chat(ctx, pipeline.ChatRequest{Sampling: pipeline.DefaultSampling(), Language: e.model.Language(), Messages: []pipeline.ChatMessage{
		{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Image: askedImage(img)}, {Text: prompt}}}}}, nil)
	if err != nil {
		return nil, err
	}
	return &plainReport{true, plainNotice(e.model.Bundle().Manifest), prompt, a.Language, a.Text, a.End}, nil
}

// askedImage is an image that was decoded, to be asked about.
func askedImage(img *pipeline.Image) *pipeline.ChatImage {
	return &pipeline.ChatImage{Name: "instance " + img.Instance.SOPInstanceUID, Content: sha256.Sum256(fmt.Append(nil, img.Instance.Digest, img.Frame)),
		Load: func(context.Context) (*pipeline.Image, error) { return img, nil }}
}

// plain shows the words for the patient.
func (p page) plain(r *plainReport) {
	fmt.Fprintf(p.w, "\n%s\n%s\n", p.style("1", "IN WORDS FOR THE PATIENT ("+r.Language+")"), p.style("33", strings.Join(wrap(r.Notice, textWidth+10), "\n")))
	for _, line := range strings.Split(r.Text, "\n") {
		fmt.Fprintln(p.w, strings.Join(wrap(line, textWidth+10), "\n"))
	}
}
