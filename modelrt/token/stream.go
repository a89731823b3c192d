package token

import (
	"strings"
	"unicode/utf8"
)

// Stream turns ids into text as they come. What it gives is, in sum, what Decode gives for all of them, up to the first of the stop
// strings that is complete; it never gives half a character, nor the beginning of what may become a stop string. For one goroutine.
type Stream struct {
	t       *Tokenizer
	stops   []string
	hold    int    // the longest stop string, minus one
	pending []byte // bytes that may yet become part of a character
	lead    int    // of decoding.lead, how many may still come
	begun   bool   // a token has added text
	text    []byte // characters that may yet become part of a stop string
	stopped bool
}

// Stream begins a text. Stop strings that are empty do not count.
func (t *Tokenizer) Stream(stops ...string) *Stream {
	s := &Stream{t: t, lead: t.decode.lead}
	for _, stop := range stops {
		if stop != "" {
			s.stops = append(s.stops, stop)
			s.hold = max(s.hold, len(stop)-1)
		}
	}
	return s
}

// Push takes the next id and returns the text that is certain now. stopped says that a stop string is complete: the text before it has
// been given, and nothing comes after it.
func (s *Stream) Push(id int32) (text string, stopped bool) {
	if s.stopped {
		return "", true
	}
	if s.t.TokenBytes(id) != nil {
		b := s.t.at(id, !s.begun)
		s.pending = append(s.pending, b...)
		s.begun = s.begun || len(b) > 0 || !s.t.decode.untilText
		s.characters(false)
	}
	return s.give(false)
}

// End returns what is left: bytes that became no character are U+FFFD, one for each.
func (s *Stream) End() (text string, stopped bool) {
	if s.stopped {
		return "", true
	}
	s.characters(true)
	return s.give(true)
}

// characters moves whole characters from pending to text.
func (s *Stream) characters(end bool) {
	for len(s.pending) > 0 && (end || utf8.FullRune(s.pending)) {
		r, n := utf8.DecodeRune(s.pending)
		if s.lead > 0 {
			if string(s.pending[:n]) == s.t.decode.leadText {
				s.lead--
				s.pending = s.pending[n:]
				continue
			}
			s.lead = 0
		}
		s.text = utf8.AppendRune(s.text, r)
		s.pending = s.pending[n:]
	}
}

// give returns the text that no stop string can reach any more.
func (s *Stream) give(end bool) (string, bool) {
	all := string(s.text)
	from, to := len(all), len(all)+1
	for _, stop := range s.stops {
		if i := strings.Index(all, stop); i >= 0 && (i+len(stop) < to || i+len(stop) == to && i < from) {
			from, to = i, i+len(stop)
		}
	}
	if to <= len(all) {
		s.stopped = true
		return all[:from], true
	}
	keep := len(all)
	for i := max(0, len(all)-s.hold); i < len(all) && !end; i++ {
		if s.begins(all[i:]) {
			keep = i
			break
		}
	}
	s.text = append(s.text[:0], all[keep:]...)
	return all[:keep], false
}

// begins says whether a stop string begins with s.
func (s *Stream) begins(rest string) bool {
	for _, stop := range s.stops {
		if strings.HasPrefix(stop, rest) {
			return true
		}
	}
	return false
}
