package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"chatxray/pipeline"
)

type askCmd struct {
	placeFlags
	Path        string   `arg:"" help:"DICOM file, or folder with one study; - is a file on standard input."`
	Question    []string `arg:"" optional:"" help:"What to ask; may be left out with --interactive."`
	Interactive bool     `short:"i" help:"Go on asking: each line of standard input is a question, until it ends."`
	JSON        bool     `help:"Print one JSON object an answer and line, once it is whole."`
	Language    string   `help:"Language of the answer, one of the bundle's. Default: its first." placeholder:"TAG"`
	Temperature float64  `help:"0 takes the likeliest word each time; up to 2 makes answers vary." default:"0"`
	Seed        *int64   `help:"Makes the answers of a temperature come again. Default: any." placeholder:"N"`
	MaxTokens   int      `help:"Tokens of an answer at most. Default: the bundle's." placeholder:"N"`
	Schema      string   `help:"JSON Schema that the answer must meet." type:"existingfile" placeholder:"FILE"`
}

// Help is shown by chatxray ask --help.
func (askCmd) Help() string {
	return `Asks about the frontal chest radiograph of a study and prints the answer as it is written. Every answer is a draft by software.

The default bundle was taught to write reports, nothing else: it answers most questions with a piece of a report, or wrongly.
"Write a report of this chest radiograph." is what it was taught. No evidence stands behind the sentences of an answer, as it does
behind those of a report (chatxray report).

  chatxray ask image.dcm "Is there a pleural effusion?"
  chatxray ask --interactive study/
  chatxray ask --schema side.json image.dcm "Which side?"

Nothing of the header is told to the model. The questions and answers of a study are kept by the service only (docs/chat.md).`
}

// answerSchema names the JSON that ask --json prints, and its version.
const answerSchema = "chatxray.answer/1"

// askAnswer is one line of ask --json.
type askAnswer struct {
	Schema           string              `json:"schema"`
	Draft            bool                `json:"draft"` // always
	StudyInstanceUID string              `json:"study_instance_uid"`
	Inputs           []pipeline.InputRef `json:"inputs"`
	Model            pipeline.ModelRef   `json:"model"`
	Language         string              `json:"language"`
	Question         string              `json:"question"`
	Answer           string              `json:"answer"`
	End              pipeline.ChatEnd    `json:"finish_reason"`
	Sampling         pipeline.Sampling   `json:"sampling"`
	PromptTokens     int                 `json:"prompt_tokens"`
	CachedTokens     int                 `json:"cached_tokens"`
	AnswerTokens     int                 `json:"completion_tokens"`
	Boxes            []pipeline.Box      `json:"boxes,omitempty"`
}

// Validate is called when the command line has been read.
func (c askCmd) Validate() error {
	switch {
	case c.question() == "" && !c.Interactive:
		return errors.New("no question; give one, or --interactive")
	case c.Path == "-" && c.Interactive:
		return errors.New("the file and the questions cannot both come on standard input")
	case !(c.Temperature >= 0 && c.Temperature <= 2):
		return errors.New("--temperature is from 0 to 2")
	}
	return nil
}

func (c askCmd) question() string { return strings.TrimSpace(strings.Join(c.Question, " ")) }

// Run asks one question, or one after another.
func (c askCmd) Run(ctx context.Context, s streams) error {
	request, err := c.request()
	if err != nil {
		return err
	}
	studies, invalid, err := openStudies(s, []string{c.Path})
	if err != nil {
		return err
	}
	switch {
	case len(studies) == 0:
		return invalid
	case len(studies) > 1:
		return fmt.Errorf("%w: %s has %d studies; ask about one", pipeline.ErrInvalid, c.Path, len(studies))
	}
	eng, err := openEngine(ctx, s, c.placeFlags)
	if err != nil {
		return err
	}
	defer eng.Close()
	img, err := frontal(ctx, eng.steps, studies[0])
	if err != nil {
		return err
	}
	a := asking{askCmd: c, s: s, eng: eng, request: request, image: img, study: studies[0].StudyInstanceUID}
	if question := c.question(); question != "" {
		if err := a.ask(ctx, question); err != nil || !c.Interactive {
			return err
		}
	}
	return a.interactive(ctx)
}

// request is what every question has in common.
func (c askCmd) request() (r pipeline.ChatRequest, err error) {
	r = pipeline.ChatRequest{Language: c.Language, Sampling: pipeline.DefaultSampling(), MaxTokens: c.MaxTokens}
	r.Sampling.Temperature, r.Sampling.Seed = c.Temperature, uint64(rand.Int64N(1<<53))
	if c.Seed != nil {
		r.Sampling.Seed = uint64(*c.Seed)
	}
	if c.Schema != "" {
		r.Schema, err = os.ReadFile(c.Schema)
	}
	return r, errors.Join(err, r.Sampling.Check())
}

// asking is a conversation about an image.
type asking struct {
	askCmd
	s       streams
	eng     *engine
	request pipeline.ChatRequest
	image   *pipeline.Image
	study   string
	headed  bool // the heading was written
}

// head writes what stands over the first answer.
func (a *asking) head() {
	if a.headed {
		return
	}
	a.headed = true
	title := "DRAFT by software, not reviewed by a radiologist"
	if a.image.Instance.Header.IsPhantom() {
		title += " - about a PHANTOM, no patient"
	}
	fmt.Fprintf(a.s.out, "%s\n\n", page{w: a.s.out, color: a.s.color()}.style("1;33", title))
}

// interactive asks each line of standard input. What is wrong with a question is told, and the next one may be better.
func (a *asking) interactive(ctx context.Context) error {
	lines := make(chan string)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(a.s.in)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		failed <- in.Err()
	}()
	prompt := func() {
		if isTerminal(a.s.out) && !a.JSON {
			fmt.Fprint(a.s.out, "\n> ")
		}
	}
	for prompt(); ; prompt() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line, more := <-lines:
			if !more {
				return <-failed
			}
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			err := a.ask(ctx, line)
			if errors.Is(err, pipeline.ErrInvalid) || errors.Is(err, pipeline.ErrModel) {
				fmt.Fprintln(a.s.err, "chatxray:", err)
			} else if err != nil {
				return err
			}
		}
	}
}

// ask asks one question after what was said before. A question that failed was not said.
func (a *asking) ask(ctx context.Context, question string) error {
	m := pipeline.ChatMessage{Role: pipeline.RoleUser}
	if len(a.request.Messages) == 0 {
		m.Parts = append(m.Parts, pipeline.ChatPart{Image: askedImage(a.image)})
	}
	m.Parts = append(m.Parts, pipeline.ChatPart{Text: question})
	r := a.request
	r.Messages = append(r.Messages, m)
	emit := func(p pipeline.ChatPiece) error {
		a.head()
		_, err := io.WriteString(a.s.out, p.Text)
		return err
	}
	if a.JSON {
		emit = nil
	}
	answer, err := a.eng.model.Chat(ctx, r, emit)
	if err != nil {
		return err
	}
	a.request.Messages = append(r.Messages, pipeline.ChatMessage{Role: pipeline.RoleAssistant, Parts: []pipeline.ChatPart{{Text: answer.Text}}})
	if a.JSON {
		return json.NewEncoder(a.s.out).Encode(askAnswer{answerSchema, true, a.study, answer.Inputs, answer.Model, answer.Language, question, answer.Text,
			answer.End, r.Sampling, answer.Prompt, answer.Reused, answer.Written, answer.Boxes})
	}
	a.head()
	fmt.Fprintln(a.s.out)
	for _, b := range answer.Boxes {
		fmt.Fprintf(a.s.out, "box  %.0f,%.0f to %.0f,%.0f  %s\n", b.Left, b.Top, b.Right, b.Bottom, b.Label)
	}
	if answer.End == pipeline.EndLength {
		fmt.Fprintf(a.s.err, "The answer was cut off at %d tokens.\n", cmp.Or(a.MaxTokens, answer.Written))
	}
	return nil
}
