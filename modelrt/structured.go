package modelrt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// StructuredFile names a bundle's own form of structured reports.
type StructuredFile struct {
	// Schema is a JSON Schema, as guard.NewSchema reads it, of an object with "findings": a list of objects with "label", "status", "side" and
	// "sentence". Empty is the usual one.
	Schema string `json:"schema"`
}

// The words of the usual form.
var (
	structuredSides    = []string{"left", "right", "both", "none"}
	structuredStatuses = []pipeline.Presence{pipeline.Present, pipeline.Absent, pipeline.Undetermined}
)

// longestSentence is how many characters a sentence of the usual form may have.
const longestSentence = 200

// structuredSchema is the bundle's own form, or the usual one: each label that the bundle was taught once, in the order of the closed list.
// quotes, where it is not nil, returns the sentences that may stand beside a label, and whether one must.
func (b *Bundle) structuredSchema(quotes func(label string) (sentences []string, must bool)) ([]byte, error) {
	if own := b.Manifest.Structured.Schema; own != "" {
		return readBounded(b.path(own), maxManifest)
	}
	type object = map[string]any
	var items []any
	for _, label := range pipeline.Labels {
		if !slices.Contains(b.Manifest.Labels, label) {
			continue
		}
		words := object{"type": "string", "minLength": 1, "maxLength": longestSentence}
		may, must := true, false // be said
		if quotes != nil {
			var q []string
			q, must = quotes(label)
			may, words = len(q) > 0, object{"enum": q}
		}
		silent := ordered(object{"label": object{"const": label}, "status": object{"const": pipeline.NotSaid}}, "label", "status")
		said := ordered(object{"label": object{"const": label}, "sentence": words, "status": object{"enum": structuredStatuses}, "side": object{"enum": structuredSides}},
			"label", "sentence", "status", "side")
		switch {
		case must:
			items = append(items, said)
		case may:
			items = append(items, object{"anyOf": []any{silent, said}})
		default:
			items = append(items, silent)
		}
	}
	return json.Marshal(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": []string{"findings"}, "additionalProperties": false,
		"properties": object{"findings": object{"type": "array", "prefixItems": items, "items": false, "minItems": len(items)}},
	})
}

// ordered is a closed object of members that all must be there, written in the given order: json.Marshal would sort them.
func ordered(members map[string]any, names ...string) json.RawMessage {
	var b bytes.Buffer
	b.WriteString(`{"type":"object","additionalProperties":false,"properties":{`)
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		value, _ := json.Marshal(members[name]) // of strings and numbers
		fmt.Fprintf(&b, "%q:%s", name, value)
	}
	required, _ := json.Marshal(names)
	fmt.Fprintf(&b, `},"required":%s}`, required)
	return b.Bytes()
}

// entry is one finding of a form, and where the text of its sentence is in the answer.
type entry struct {
	pipeline.StructuredFinding
	at extent
}

// parseStructured makes a report of a form that was filled in. Of one that was cut off, the entries that are whole count.
func (m *Model) parseStructured(a *answer) (*contents, error) {
	entries, err := readEntries(a.text)
	if err != nil && !(a.truncated && errors.Is(err, io.ErrUnexpectedEOF)) {
		return nil, fmt.Errorf("%w: its form cannot be read: %v", pipeline.ErrModel, err)
	}
	s := &pipeline.Structured{Schema: m.task.schema, Taught: true, Report: a.text, Truncated: a.truncated}
	if a.truncated {
		if s.Report, err = m.completed(entries); err != nil {
			return nil, err
		}
	}
	w := &contents{structured: s}
	said := map[string][]pipeline.Finding{}
	for _, e := range entries {
		if !slices.Contains(pipeline.Labels, e.Label) || e.Status != pipeline.NotSaid && !slices.Contains(structuredStatuses, e.Status) {
			return nil, fmt.Errorf("%w: its form has the label %.40q with the status %.20q", pipeline.ErrModel, e.Label, e.Status)
		}
		text := strings.TrimSpace(e.Sentence)
		if e.Status == pipeline.NotSaid || text == "" { // nothing is said without words
			continue
		}
		section := pipeline.SectionFindings
		if e.Label == noFinding {
			section = pipeline.SectionImpression
		}
		first, last := a.tokenAt(e.at.from), a.tokenAt(e.at.to-1)
		at := len(w.sentences)
		w.sentences = append(w.sentences, pipeline.Sentence{Text: text, Section: section, FirstToken: first, Tokens: last - first + 1})
		f := pipeline.Finding{Label: e.Label, Presence: m.supported(e.Label, e.Status, text), Sentences: []int{at}}
		if f.Presence != e.Status {
			s.Unsupported = append(s.Unsupported, e.Label)
		}
		said[e.Label] = append(said[e.Label], f)
	}
	if len(w.sentences) == 0 {
		return nil, fmt.Errorf("%w: its form says nothing about any label in %d tokens", pipeline.ErrModel, len(a.tokens))
	}
	w.findings = stated(said)
	return w, nil
}

// quotes returns the sentences of a report that say something about a label, one of which must stand there; any of them may where the labeler
// does not know the language.
func (m *Model) quotes(r *pipeline.Reading) func(label string) ([]string, bool) {
	foreign := m.knows != nil && !m.knows(r.Language)
	return func(label string) (list []string, must bool) {
		for i, s := range r.Sentences {
			about := foreign
			for _, f := range r.Findings {
				about = about || f.Label == label && slices.Contains(f.Sentences, i)
			}
			if about && !slices.Contains(list, s.Text) {
				list = append(list, s.Text)
			}
		}
		return list, len(list) > 0 && !foreign
	}
}

// fill lets a model that was not taught to write forms fill one in after its report: with the report's own sentences, and nothing about a label
// that the report does not speak of. Status and side are the model's. Nothing is made of it: sentences, findings and evidence stay those of the report.
func (m *Model) fill(ctx context.Context, seen *sight, a *answer, r *pipeline.Reading) (*pipeline.Structured, time.Duration, error) {
	schema, err := m.bundle.structuredSchema(m.quotes(r))
	if err != nil {
		return nil, 0, err
	}
	form, err := guard.NewSchema(m.talks.vocabulary, m.guard.Scripts(), schema)
	if err != nil {
		return nil, 0, fmt.Errorf("the schema of structured reports: %w", err)
	}
	c, err := begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer c.end()
	said, err := m.compose(c, m.task.template, []*sight{seen})
	if err != nil {
		return nil, 0, err
	}
	ids := slices.Concat(a.tokens, m.prompt.tokenizer.Encode("\n"))
	if n := len(said.keys) + len(ids); n >= m.prompt.longest {
		return nil, 0, fmt.Errorf("%w: prompt and report have %d tokens, which leaves none of decoder.max_length %d for a form", pipeline.ErrInvalid, n, m.prompt.longest)
	}
	embeds := make([]float32, len(ids)*m.bundle.Manifest.Decoder.Hidden)
	if err := m.decoder.lookup(c, ids, embeds); err != nil {
		return nil, 0, err
	}
	for _, id := range ids {
		said.places.follow(id)
		said.keys = append(said.keys, uint64(id))
	}
	f, limit := &answer{}, m.prompt.longest-len(said.keys)
	t := &text{ctx: ctx, class: classRoutine, form: true, adapter: m.worn, prompt: append(said.embeds, embeds...), keys: said.keys, places: said.places,
		choose: greedyUnder(guard.All{m.guard.Follow(), form.Follow()}), take: func(id int32, logprob float64) bool {
			if m.prompt.stops[id] {
				return false
			}
			f.add(id, logprob, m.prompt.tokenizer.TokenBytes(id), nil)
			f.truncated = len(f.tokens) == limit
			return !f.truncated
		}}
	if err := m.engine.write(t); err != nil {
		return nil, t.spent, err
	}
	entries, err := readEntries(f.text)
	if err != nil && !(f.truncated && errors.Is(err, io.ErrUnexpectedEOF)) {
		return nil, t.spent, fmt.Errorf("%w: its form cannot be read: %v", pipeline.ErrModel, err)
	}
	s := &pipeline.Structured{Schema: schema, Report: f.text, Truncated: f.truncated}
	if err = nil; f.truncated {
		if s.Report, err = m.completed(entries); err == nil {
			s.Schema, err = m.bundle.structuredSchema(nil) // what is missing is not said, whatever the report says
		}
	}
	for _, e := range entries {
		at := slices.Index(pipeline.Labels, e.Label)
		if e.Status != pipeline.NotSaid && at >= 0 && r.Findings[at].Presence != e.Status && (m.knows == nil || m.knows(r.Language)) {
			s.Unsupported = append(s.Unsupported, e.Label)
		}
	}
	return s, t.spent, err
}

const noFinding = "No Finding"

// supported is what a sentence leaves of the status beside it. Codes come from sentences: a sentence that the labeler reads otherwise leaves
// the label undetermined, one that it takes to be about something else leaves it unsaid. In a language that the labeler does not know the
// status stands alone.
func (m *Model) supported(label string, status pipeline.Presence, sentence string) pipeline.Presence {
	if m.knows != nil && !m.knows(m.task.language) {
		return status
	}
	for _, f := range m.label([]string{sentence}) {
		switch {
		case f.Label != label || f.Presence == status:
		case f.Presence == pipeline.NotSaid:
			return pipeline.NotSaid
		default:
			return pipeline.Undetermined
		}
	}
	return status
}

// stated joins what a form says of each label: present wins over undetermined, and that over absent. No Finding is present only where
// nothing abnormal is said, devices apart.
func stated(said map[string][]pipeline.Finding) []pipeline.Finding {
	found, abnormal, open := make([]pipeline.Finding, len(pipeline.Labels)), false, false
	for i, label := range pipeline.Labels {
		f := pipeline.Finding{Label: label, Presence: pipeline.NotSaid}
		for _, p := range []pipeline.Presence{pipeline.Absent, pipeline.Undetermined, pipeline.Present} {
			var at []int
			for _, o := range said[label] {
				if o.Presence == p {
					at = append(at, o.Sentences...)
				}
			}
			if at != nil {
				f.Presence, f.Sentences = p, at
			}
		}
		found[i] = f
		if label != noFinding && label != "Support Devices" {
			abnormal, open = abnormal || f.Presence == pipeline.Present, open || f.Presence == pipeline.Undetermined
		}
	}
	if none := &found[slices.Index(pipeline.Labels, noFinding)]; none.Presence == pipeline.Present && abnormal {
		none.Presence = pipeline.Absent
	} else if none.Presence == pipeline.Present && open {
		none.Presence = pipeline.Undetermined
	}
	return found
}

// completed is a form of whole entries: the usual one with the labels that are missing not said; of a bundle's own form, the findings alone,
// which may not meet its schema.
func (m *Model) completed(entries []entry) ([]byte, error) {
	list := []pipeline.StructuredFinding{}
	for _, e := range entries {
		list = append(list, e.StructuredFinding)
	}
	if m.bundle.Manifest.Structured.Schema == "" {
		for _, label := range pipeline.Labels {
			if slices.Contains(m.bundle.Manifest.Labels, label) && !slices.ContainsFunc(list, func(f pipeline.StructuredFinding) bool { return f.Label == label }) {
				list = append(list, pipeline.StructuredFinding{Label: label, Status: pipeline.NotSaid})
			}
		}
	}
	return json.Marshal(map[string]any{"findings": list})
}

// readEntries finds the entries of a form. At the end of a text that is cut off it returns those that are whole, and io.ErrUnexpectedEOF.
func readEntries(text []byte) (entries []entry, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	eof := func(err error) error {
		if err == io.EOF || err != nil && strings.Contains(err.Error(), "unexpected end") {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	key := ""
	for depth := 0; ; {
		from := d.InputOffset()
		t, err := d.Token()
		if err == io.EOF && depth == 0 && from > 0 {
			return entries, nil
		}
		if err != nil {
			return entries, eof(err)
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if s, ok := t.(string); ok && depth == 1 {
			key = s
		}
		if depth != 2 || key != "findings" || t != json.Delim('[') {
			continue
		}
		for d.More() {
			e, err := readEntry(d, text)
			if err != nil {
				return entries, eof(err)
			}
			entries = append(entries, e)
		}
	}
}

// readEntry reads one entry.
func readEntry(d *json.Decoder, text []byte) (e entry, err error) {
	t, err := d.Token()
	if err != nil {
		return e, err
	}
	if t != json.Delim('{') {
		return e, errors.New("a finding is no object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return e, err
		}
		from := d.InputOffset()
		var value any
		if err := d.Decode(&value); err != nil {
			return e, err
		}
		s, _ := value.(string)
		switch key {
		case "label":
			e.Label = s
		case "status":
			e.Status = pipeline.Presence(s)
		case "side":
			e.Side = s
		case "sentence":
			e.Sentence = s
			quote := int(from) + bytes.IndexByte(text[from:], '"')
			e.at = extent{quote + 1, int(d.InputOffset()) - 1}
		}
	}
	_, err = d.Token()
	return e, err
}
