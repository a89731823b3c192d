package dicomweb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// given is a JSON object of a request. What is taken out of it is known; the rest is told by end.
type given struct {
	path   string // before the names of its members: "", "messages[0]."
	fields map[string]json.RawMessage
}

func wrong(param, format string, a ...any) error {
	return &pipeline.ChatError{Param: param, Err: fmt.Errorf("%w: %s", pipeline.ErrInvalid, strings.TrimSpace(param+" "+fmt.Sprintf(format, a...)))}
}

// objectOf reads a JSON object called param.
func objectOf(raw json.RawMessage, param string) (given, error) {
	g := given{path: param + "."}
	if param == "" {
		g.path = ""
	}
	if err := json.Unmarshal(raw, &g.fields); err != nil || g.fields == nil {
		return g, wrong(param, "is no JSON object")
	}
	return g, nil
}

// raw takes a member; null is none.
func (g given) raw(key string) json.RawMessage {
	v := g.fields[key]
	delete(g.fields, key)
	if string(bytes.TrimSpace(v)) == "null" {
		return nil
	}
	return v
}

// take reads a member into a bool, string, []string or float64; what says what it must be.
func (g given) take(key, what string, into any) error {
	v := g.raw(key)
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(v, into); err != nil {
		return wrong(g.path+key, "is not %s", what)
	}
	return nil
}

// number reads a member from least to most.
func (g given) number(key string, into *float64, least, most float64) error {
	if err := g.take(key, "a number", into); err != nil {
		return err
	}
	if !(*into >= least && *into <= most) {
		return wrong(g.path+key, "is %v, which is not from %v to %v", *into, least, most)
	}
	return nil
}

// integer reads a member from least to most; there says whether it is there.
func (g given) integer(key string, into *int64, least, most int64) (there bool, err error) {
	v := g.raw(key)
	if v == nil {
		return false, nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil { // 1.0 and 1e3 are integers, too
		f, ferr := strconv.ParseFloat(string(v), 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return true, wrong(g.path+key, "is not an integer from %d to %d", least, most)
		}
		n = int64(f)
	}
	if n < least || n > most {
		return true, wrong(g.path+key, "is %d, which is not from %d to %d", n, least, most)
	}
	*into = n
	return true, nil
}

// only refuses a member that has another than one harmless value.
func (g given) only(key, why string, harmless ...string) error {
	v := g.raw(key)
	var compact bytes.Buffer
	if v == nil || json.Compact(&compact, v) == nil && slices.Contains(harmless, compact.String()) {
		return nil
	}
	return &pipeline.ChatError{Param: g.path + key, Code: "unsupported_value", Err: fmt.Errorf("%w: %s%s: %s", pipeline.ErrUnsupported, g.path, key, why)}
}

// end names the members that nobody has taken.
func (g given) end() error {
	if len(g.fields) == 0 {
		return nil
	}
	name := slices.Sorted(maps.Keys(g.fields))[0]
	return &pipeline.ChatError{Param: g.path + name, Code: "unknown_parameter",
		Err: fmt.Errorf("%w: this service does not know %s%.100s", pipeline.ErrInvalid, g.path, name)}
}
