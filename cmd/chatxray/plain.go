package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// plainPrompt asks for a report in words for the patient.
const plainPrompt = "Explain this chest radiograph to the patient in plain words, without medical terms."

// plainNotice stands with every such report.
const plainNotice = "Not for the patient yet: an unreviewed draft by software, without evidence for its sentences. The default bundle was not taught to write plainly, and does not."

// plainReport is a report in words for the patient. It is no part of the reading and enters no document.
type plainReport struct {
	Draft    bool             `json:"draft"` // always
	Notice   string           `json:"notice"`
	Prompt   string           `json:"prompt"`
	Language string           `json:"language"`
	Text     string           `json:"text"`
	End      pipeline.ChatEnd `json:"finish_reason"`
}

// plain asks the model to explain the image that was read.
func (e *engine) plain(ctx context.Context, img *pipeline.Image) (*plainReport, error) {
	a, err := e.asked.Chat(ctx, pipeline.ChatRequest{Sampling: pipeline.DefaultSampling(), Messages: []pipeline.ChatMessage{
		{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Image: askedImage(img)}, {Text: plainPrompt}}}}}, nil)
	if err != nil {
		return nil, fmt.Errorf("the words for the patient: %w", err)
	}
	return &plainReport{true, plainNotice, plainPrompt, a.Language, a.Text, a.End}, nil
}

// askedImage is an image that was decoded, to be asked about.
func askedImage(img *pipeline.Image) *pipeline.ChatImage {
	return &pipeline.ChatImage{Name: "instance " + img.Instance.SOPInstanceUID, Content: sha256.Sum256(fmt.Append(nil, img.Instance.Digest, img.Frame)),
		Load: func(context.Context) (*pipeline.Image, error) { return img, nil }}
}

// plain shows the words for the patient.
func (p page) plain(r *plainReport) {
	fmt.Fprintf(p.w, "\n%s\n%s\n", p.style("1", "IN WORDS FOR THE PATIENT"), p.style("33", strings.Join(wrap(r.Notice, textWidth+10), "\n")))
	for _, line := range strings.Split(r.Text, "\n") {
		fmt.Fprintln(p.w, strings.Join(wrap(line, textWidth+10), "\n"))
	}
}
