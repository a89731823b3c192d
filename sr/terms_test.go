package sr_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"chatxray/pipeline"
	"chatxray/sr"
)

// told walks the codes of a document's content tree that are told in its own language: those of items that are marked otherwise are left out.
func told(item pipeline.Dataset, root bool, visit func(value, scheme, meaning string)) {
	children := item.Items(pipeline.TagContentSequence)
	marked := slices.ContainsFunc(children, func(c pipeline.Dataset) bool {
		return conceptOf(c) == "121049"
	})
	if marked && !root {
		return
	}
	var codes func(items []pipeline.Dataset)
	codes = func(items []pipeline.Dataset) {
		for _, c := range items {
			visit(c.String(pipeline.TagCodeValue), c.String(pipeline.TagCodingSchemeDesignator), c.String(pipeline.TagCodeMeaning))
			codes(c.Items(pipeline.TagEquivalentCodeSequence))
		}
	}
	codes(item.Items(pipeline.TagConceptNameCodeSequence))
	codes(item.Items(pipeline.TagConceptCodeSequence))
	for _, c := range children {
		told(c, false, visit)
	}
}

// conceptOf is the code value of a content item's name; empty where it has none.
func conceptOf(item pipeline.Dataset) string {
	for _, c := range item.Items(pipeline.TagConceptNameCodeSequence) {
		return c.String(pipeline.TagCodeValue)
	}
	return ""
}

// A document in another language has the codes of the English one and tells none of them in English, but those that have the same word.
func TestCodeMeaningsFollowTheLanguage(t *testing.T) {
	same := map[string]bool{"Pneumothorax": true, "Pneumonie": true, "Fracture": true, "Conclusion": true, "Normal": true, "Absent": true}
	for _, language := range []string{"de", "fr", "es", "zh"} {
		for name, in := range map[string]sr.Input{"full": full(), "effusion": effusion(), "phantom": variants()["phantom"], "two images": variants()["two images"]} {
			for _, kind := range sr.Kinds() {
				type code struct{ value, scheme string }
				english, other := map[code]string{}, map[code]string{}
				for _, l := range []string{"en", language} {
					in.Reading.Language = l
					d, err := sr.Dataset(in, kind)
					if err != nil {
						t.Fatal(err)
					}
					told(d, true, func(value, scheme, meaning string) {
						if scheme == "RFC5646" {
							return
						}
						if l == "en" {
							english[code{value, scheme}] = meaning
						} else {
							other[code{value, scheme}] = meaning
						}
						if n := utf8.RuneCountInString(meaning); n == 0 || n > 64 {
							t.Errorf("%s: %q has %d characters", l, meaning, n)
						}
					})
				}
				if len(english) < 15 {
					t.Fatalf("only %d codes", len(english))
				}
				for c, meaning := range other {
					if english[c] == "" {
						t.Errorf("%s: code %v is not in the English %s, %s", language, c, name, kind)
					}
					if meaning == english[c] && !same[meaning] {
						t.Errorf("%s, %s, %s: %v is still %q: it belongs into terms", language, name, kind, c, meaning)
					}
				}
			}
		}
	}
}

// TID 1204: the language as RFC 5646 has it, the country beside it, both named in the language where documents are told in it.
func TestLanguageOfDocuments(t *testing.T) {
	for tag, want := range map[string]string{
		"en": "en English", "en-US": "en English, US United States", "de": "de Deutsch", "de-AT": "de Deutsch, AT Österreich", "fr-CA": "fr français, CA Canada", "es-MX": "es español, MX México",
		"zh": "zh 中文", "zh-CN": "zh 中文, CN 中国", "zh-Hant-TW": "zh Chinese, TW Taiwan", "ja": "ja Japanese", "sr-Latn": "sr Serbian",
	} {
		for _, kind := range sr.Kinds() {
			in := effusion()
			in.Reading.Language = tag
			d, err := sr.Dataset(in, kind)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(languages(d.Items(pipeline.TagContentSequence)), ", "); got != want {
				t.Errorf("%s, %s: %s, want %s", tag, kind, got, want)
			}
		}
	}
}

// languages lists the codes of the language items among some.
func languages(items []pipeline.Dataset) (all []string) {
	for _, i := range items {
		if v := conceptOf(i); v != "121049" && v != "121046" {
			continue
		}
		for _, c := range i.Items(pipeline.TagConceptCodeSequence) {
			all = append(all, c.String(pipeline.TagCodeValue)+" "+c.String(pipeline.TagCodeMeaning))
		}
		all = append(all, languages(i.Items(pipeline.TagContentSequence))...)
	}
	return all
}

func TestHeadings(t *testing.T) {
	for tag, want := range map[string]string{
		"en": "Findings, Impression, Pleural Effusion, present, not said", "de-CH": "Befund, Beurteilung, Pleuraerguss, Vorhanden, Nicht erwähnt",
		"fr": "Résultats, Conclusion, Épanchement pleural, Présent, Non mentionné", "es": "Hallazgos, Impresión diagnóstica, Derrame pleural, Presente, No mencionado",
		"zh": "影像所见, 诊断印象, 胸腔积液, 存在, 未提及", "zh-TW": "Findings, Impression, Pleural Effusion, present, not said", "ja": "Findings, Impression, Pleural Effusion, present, not said",
	} {
		got := strings.Join([]string{sr.Heading(tag, pipeline.SectionFindings), sr.Heading(tag, pipeline.SectionImpression), sr.LabelName(tag, "Pleural Effusion"),
			sr.PresenceName(tag, pipeline.Present), sr.PresenceName(tag, pipeline.NotSaid)}, ", ")
		if got != want {
			t.Errorf("%s: %s, want %s", tag, got, want)
		}
		for _, l := range pipeline.Labels {
			if name := sr.LabelName(tag, l); name == "" || tag == "zh" && name == l {
				t.Errorf("%s: %s is %q", tag, l, name)
			}
		}
	}
}
