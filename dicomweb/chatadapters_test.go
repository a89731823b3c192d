package dicomweb_test

import (
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// adaptedTalker is a talker with an adapter.
type adaptedTalker struct {
	talker
	name string
}

func (k *adaptedTalker) Card() pipeline.ModelCard {
	c := k.talker.Card()
	c.Ref.Name += ":" + k.name
	return c
}

// Adapters are models of their own: listed, asked by their name, kept under it.
func TestChatAdapters(t *testing.T) {
	base, chest, child := &talker{}, &adaptedTalker{name: "chest"}, &adaptedTalker{name: "child"}
	s := talks(t, base, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		d.Adapters = []dicomweb.Chat{chest, child}
	})
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	r := s.v1("GET", "/v1/models", "")
	for _, id := range []string{`"id":"talker"`, `"id":"talker:chest"`, `"id":"talker:child"`} {
		if !strings.Contains(string(r.body), id) {
			t.Errorf("%s lacks %s", r.body, id)
		}
	}
	if r := s.v1("GET", "/v1/models/talker:child", ""); r.StatusCode != 200 || !strings.Contains(string(r.body), `"id":"talker:child"`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.v1("GET", "/v1/models/talker:foot", ""); r.StatusCode != 404 || !strings.Contains(string(r.body), `\"talker\", \"talker:chest\", \"talker:child\"`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	for name, k := range map[string]*talker{"talker": base, "talker:chest": &chest.talker, "talker:child": &child.talker} {
		r := s.v1("POST", "/v1/chat/completions", strings.Replace(askedWith("dicom:1.2", ""), `"talker"`, `"`+name+`"`, 1))
		if r.StatusCode != 200 || len(k.asked) != 1 || !strings.Contains(string(r.body), `"model":"`+name+`"`) {
			t.Errorf("%s: %d, asked %d times: %s", name, r.StatusCode, len(k.asked), r.body)
		}
	}
	if r := s.v1("POST", "/v1/chat/completions", strings.Replace(askedWith("dicom:1.2", ""), `"talker"`, `"chest"`, 1)); r.StatusCode != 404 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}
