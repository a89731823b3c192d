package modelrt

import (
	"fmt"
	"slices"
	"strings"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// Wording is what a bundle is asked in one of its languages.
type Wording struct {
	Template         string `json:"template"`          // of a report, as prompt.template
	ImpressionPrefix string `json:"impression_prefix"` // as report.impression_prefix
	Plain            string `json:"plain"`             // the user's words that ask for a report in words for the patient
	Structured       string `json:"structured"`        // template of a structured report; empty where the bundle was not taught to write one
	Opinion          string `json:"opinion"`           // template of an opinion on a draft's wording; holds draftMark once and no sentinel
}

// draftMark stands in Wording.Opinion where the draft is.
const draftMark = "{draft}"

// maxLanguages bounds the languages of a bundle.
const maxLanguages = 64

// Language returns a language as the manifest spells it; empty is its first. Errors: ErrUnsupported with those that it has.
func (m *Manifest) Language(tag string) (string, error) {
	if tag == "" {
		return m.Languages[0], nil
	}
	for _, l := range m.Languages {
		if strings.EqualFold(l, tag) {
			return l, nil
		}
	}
	return "", fmt.Errorf("%w: this model does not write %.40q; it writes %s", pipeline.ErrUnsupported, tag, strings.Join(m.Languages, ", "))
}

// Wording returns what is asked in one of m.Languages.
func (m *Manifest) Wording(language string) Wording {
	w := m.Prompts[language]
	if language == m.Languages[0] {
		w.Template, w.ImpressionPrefix = m.Prompt.Template, m.Report.ImpressionPrefix
	}
	return w
}

// languageFaults checks the languages and their prompts.
func (m *Manifest) languageFaults() (faults []error) {
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w %s: %s", pipeline.ErrInvalid, key, fmt.Sprintf(format, a...)))
	}
	if n := len(m.Languages); n == 0 { // statementFaults says so
		return nil
	} else if n > maxLanguages {
		fault("languages", "%d; up to %d are read", n, maxLanguages)
		return faults
	}
	once := func(key, text string) {
		if n := strings.Count(text, m.Prompt.Sentinel); m.Prompt.Sentinel != "" && n != 1 {
			fault(key, "holds the sentinel %d times, not once", n)
		}
	}
	for i, l := range m.Languages {
		if _, err := guard.ScriptsFor(l); err != nil {
			faults = append(faults, fmt.Errorf("languages: %w", err))
		}
		if slices.ContainsFunc(m.Languages[:i], func(o string) bool { return strings.EqualFold(o, l) }) {
			fault("languages", "%q stands there twice", l)
		}
		key, own := "prompts."+l, m.Prompts[l]
		if i == 0 {
			if m.Prompt.Instruction == "" {
				once("prompt.template", m.Prompt.Template)
			}
			if own.Template != "" || own.ImpressionPrefix != "" {
				fault(key, "its template and impression_prefix are those of prompt and report")
			}
		} else if once(key+".template", own.Template); own.Template == "" {
			fault(key+".template", "is empty")
		}
		if own.Structured != "" {
			once(key+".structured", own.Structured)
		}
		if o := own.Opinion; o != "" && (strings.Count(o, draftMark) != 1 || m.Prompt.Sentinel != "" && strings.Contains(o, m.Prompt.Sentinel)) {
			fault(key+".opinion", "does not hold %s once, or holds the sentinel", draftMark)
		}
	}
	for l := range m.Prompts {
		if !slices.Contains(m.Languages, l) {
			fault("prompts."+l, "is none of languages, %s", strings.Join(m.Languages, ", "))
		}
	}
	return faults
}

// task is what Read asks of the model: in which language, with which prompt, and in which form the answer is.
type task struct {
	language string
	template string
	prefix   string         // of the impression; empty for none
	stops    []string       // strings that end the report
	schema   []byte         // of a report that is a form; nil for one in sentences
	form     *guard.Grammar // of schema
	fill     bool           // a form is filled in after a report in sentences: the bundle has no prompt for forms
}

// task chooses what Read asks. Errors: those of Language, and of the bundle's own schema.
func (b *Bundle) task(language string, structured bool) (*task, error) {
	m := b.Manifest
	language, err := m.Language(language)
	if err != nil {
		return nil, err
	}
	w := m.Wording(language)
	k := &task{language: language, template: w.Template, prefix: w.ImpressionPrefix, stops: m.Generation.StopStrings}
	if k.fill = structured && w.Structured == ""; structured && !k.fill {
		k.template, k.stops = w.Structured, nil
		k.schema, err = b.structuredSchema(nil)
	}
	return k, err
}

// Language is that of the reports.
func (m *Model) Language() string { return m.task.language }

// prepareTask lays the task's prompt and makes what keeps the answer in its language and form.
func (m *Model) prepareTask() (err error) {
	f, k := m.bundle.Manifest, m.task
	if k.template == "" { // the chat template has it
		k.template = m.prompt.report
	}
	if m.prompt.template, err = m.prompt.lay(k.template, f.usualImage()); err != nil {
		return err
	}
	if m.guard, err = m.guardFor(k.language); err != nil {
		return err
	}
	m.limit = f.Decoder.MaxLength - m.prompt.length()
	if k.schema == nil {
		m.limit = min(m.limit, f.Generation.MaxNewTokens)
		return nil
	}
	if k.form, err = m.grammarOf(k.language, m.guard.Scripts(), k.schema); err != nil {
		return fmt.Errorf("the schema of structured reports: %w", err)
	}
	return nil
}

// choice is how the tokens of one report are chosen: the likeliest that language and form allow.
func (m *Model) choice() func(logits []float32) (int32, float64, error) {
	if m.task.form == nil {
		return greedyWithin(m.guard)
	}
	return greedyUnder(guard.All{m.guard.Follow(), m.task.form.Follow()})
}

// contents is what a report says: findings where the report itself states them.
type contents struct {
	sentences  []pipeline.Sentence
	findings   []pipeline.Finding
	structured *pipeline.Structured
}

// parse takes an answer apart.
func (m *Model) parse(a *answer) (*contents, error) {
	if m.task.form != nil {
		return m.parseStructured(a)
	}
	sentences, err := a.sentences(m.task.prefix)
	return &contents{sentences: sentences}, err
}

// labelled labels sentences of the task's language; nothing of one that the labeler does not know.
func (m *Model) labelled(texts []string) []pipeline.Finding {
	return labelled(m.label, m.knows, m.task.language, texts)
}

// labelled labels texts. Nothing is said in a language that the labeler does not know; a knows of nil knows all.
func labelled(label func([]string) []pipeline.Finding, knows func(string) bool, language string, texts []string) []pipeline.Finding {
	if knows == nil || knows(language) {
		return label(texts)
	}
	found := make([]pipeline.Finding, len(pipeline.Labels))
	for i, l := range pipeline.Labels {
		found[i] = pipeline.Finding{Label: l, Presence: pipeline.NotSaid}
	}
	return found
}
