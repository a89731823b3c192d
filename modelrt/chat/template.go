package chat

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

// What one rendering may take. A chat of a hundred turns takes some thousand steps.
const (
	maxSteps  = 1_000_000
	maxOutput = 1 << 20
	maxMade   = 32 << 20 // bytes of all strings and lists that were made on the way
	maxNested = 100      // lists in lists, macros in macros
)

// Template is a compiled chat template. It never changes: safe for concurrent use.
type Template struct {
	body []stmt
}

// Compile reads a chat template. ErrInvalid is one that is no Jinja, ErrUnsupported one that uses what is not done here: includes,
// imports, inheritance, and filters and tests that are not Jinja's own or are missing here, by name.
func Compile(source string) (*Template, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%w: a chat template of %d bytes; the limit is %d", pipeline.ErrInvalid, len(source), maxSource)
	}
	in, err := lex(source)
	if err != nil {
		return nil, err
	}
	p := &parser{in: in}
	body := p.body()
	if p.err != nil {
		return nil, p.err
	}
	return &Template{body}, nil
}

// Message is one turn. Its text may be untrusted: it must have gone through token.Tokenizer.Guard.
type Message struct {
	Role  string // "system", "user", "assistant" or "tool"
	Text  string // the content, where there are no parts
	Parts []Part // the content as a list
}

// Part is a text or an image of a turn.
type Part struct {
	Text  string
	Image bool // an image; Text is not used
}

// Input is what a template is rendered with.
type Input struct {
	Messages            []Message
	AddGenerationPrompt bool
	BOS, EOS            string // spelled as in the vocabulary
	Now                 time.Time
	Extra               map[string]json.RawMessage // other variables (enable_thinking, tools), each a JSON value
}

var roles = []string{"system", "user", "assistant", "tool"}

// Render writes the prompt. ErrInvalid is a chat that the template refuses (raise_exception), and a template that takes more steps or
// memory than a chat can need.
func (t *Template) Render(in Input) (text string, err error) {
	e := &run{now: in.Now}
	top := &scope{vars: map[string]value{}}
	for name, raw := range in.Extra {
		v, err := fromJSON(raw)
		if err != nil {
			return "", fmt.Errorf("%w: chat template: the variable %.40q: %w", pipeline.ErrInvalid, name, err)
		}
		top.vars[name] = v
	}
	messages := &list{}
	for i, m := range in.Messages {
		if !slices.Contains(roles, m.Role) {
			return "", fmt.Errorf("%w: message %d has the role %.40q, which is none of %s", pipeline.ErrInvalid, i+1, m.Role, strings.Join(roles, ", "))
		}
		messages.items = append(messages.items, m.value())
	}
	top.vars["messages"] = messages
	top.vars["add_generation_prompt"] = in.AddGenerationPrompt
	top.vars["bos_token"], top.vars["eos_token"] = in.BOS, in.EOS
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			text, err = "", r.err
		default:
			panic(r)
		}
	}()
	e.all(t.body, top)
	return e.out.String(), nil
}

func (m Message) value() value {
	if m.Parts == nil {
		return newDict("role", m.Role, "content", m.Text)
	}
	content := &list{}
	for _, p := range m.Parts {
		if p.Image {
			content.items = append(content.items, newDict("type", "image"))
		} else {
			content.items = append(content.items, newDict("type", "text", "text", p.Text))
		}
	}
	return newDict("role", m.Role, "content", content)
}

// failure carries an error out of a rendering.
type failure struct{ err error }

// run is one rendering.
type run struct {
	out    strings.Builder
	now    time.Time
	steps  int
	made   int
	nested int
}

func (e *run) fail(line int, format string, args ...any) {
	panic(failure{syntax(line, format, args...)})
}

// step counts work.
func (e *run) step(n int) {
	if e.steps += n; e.steps > maxSteps || e.steps < 0 {
		panic(failure{fmt.Errorf("%w: chat template: it takes more than %d steps", pipeline.ErrInvalid, maxSteps)})
	}
}

// make counts bytes before they are made.
func (e *run) make(n int) {
	if e.made += n; n < 0 || e.made > maxMade || e.made < 0 {
		panic(failure{fmt.Errorf("%w: chat template: it makes more than %d bytes on the way", pipeline.ErrInvalid, maxMade)})
	}
}

func (e *run) deeper() func() {
	if e.nested++; e.nested > maxNested {
		panic(failure{fmt.Errorf("%w: chat template: more than %d levels of lists or macros", pipeline.ErrInvalid, maxNested)})
	}
	return func() { e.nested-- }
}

func (e *run) write(s string) {
	if e.out.Len()+len(s) > maxOutput {
		panic(failure{fmt.Errorf("%w: chat template: it writes more than %d bytes", pipeline.ErrInvalid, maxOutput)})
	}
	e.out.WriteString(s)
}

// capture returns what f writes.
func (e *run) capture(f func()) string {
	outer := e.out
	e.out = strings.Builder{}
	f()
	s := e.out.String()
	e.out = outer
	e.make(len(s))
	return s
}

// scope holds variables. A loop, a macro and a with have one of their own.
type scope struct {
	vars  map[string]value
	outer *scope
}

func (s *scope) get(name string) (value, bool) {
	for ; s != nil; s = s.outer {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return nil, false
}

func (s *scope) inner() *scope { return &scope{map[string]value{}, s} }
