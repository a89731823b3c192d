package parts

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestNeeded(t *testing.T) {
	for _, c := range []struct {
		gpu  bool
		want []string
	}{
		{false, []string{"onnxruntime", "dcmjs-codecs", "smollm2-135m-instruct-gguf"}},
		{true, []string{"onnxruntime-gpu", "dcmjs-codecs", "smollm2-135m-instruct-gguf"}},
	} {
		if got := Needed(c.gpu); !slices.Equal(got, c.want) {
			t.Errorf("Needed(%v) = %v, want %v", c.gpu, got, c.want)
		}
	}
}

func TestListIsWhole(t *testing.T) {
	for _, p := range List() {
		if !slices.Contains([]string{"MIT", "Apache-2.0"}, p.Licence) {
			t.Errorf("%s: licence %q is not one that the notices cover", p.Name, p.Licence)
		}
		for _, b := range p.Builds {
			if (p.Kind == "pip") != (b.Tag != "") {
				t.Errorf("%s %s: a platform tag belongs to pip packages and only to them", p.Name, b.Platform)
			}
			last := b.Members[len(b.Members)-1].File
			if !strings.Contains(last, "LICENSE") && !strings.Contains(last, "Notices") {
				t.Errorf("%s %s: the package's licence text is not among the members", p.Name, b.Platform)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const sum = "43792647321fa65885a1fe7b2e94421dacce2b0d0c0e743839e8ab77538d35c1"
	good := `{"parts":[{"name":"a","for":"x","licence":"MIT","kind":"npm","package":"a","version":"1","needed":"always",` +
		`"builds":[{"platform":"any","file":"a.tgz","size":1,"sha256":"` + sum + `","members":[{"path":"p/f","file":"f","size":1,"sha256":"` + sum + `"}]}]}]}`
	if _, err := parse([]byte(good)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, c := range []struct{ name, old, repl string }{
		{"unknown key", `"for":"x"`, `"for":"x","colour":"red"`},
		{"file outside of the cache", `"file":"f"`, `"file":"../f"`},
		{"hidden file", `"file":"f"`, `"file":".verified.json"`},
		{"version outside of the cache", `"version":"1"`, `"version":".."`},
		{"short digest", sum[:8], "ff"},
		{"kind", `"npm"`, `"curl"`},
		{"needed", `"always"`, `"often"`},
		{"no members", `"members":[{`, `"members":[],"x":[{`},
		{"negative size", `"size":1,"sha256":"` + sum + `"}`, `"size":-1,"sha256":"` + sum + `"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.repl, 1)
			if bad == good {
				t.Fatal("the case changes nothing")
			}
			if _, err := parse([]byte(bad)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestUnknownPart(t *testing.T) {
	t.Setenv("CHATXRAY_PARTS", t.TempDir())
	if _, err := Path("cuda"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "chatxray parts list") {
		t.Errorf("Path: %v", err)
	}
	if _, err := Fetch(t.Context(), "cuda", nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("Fetch: %v", err)
	}
}

func TestNoBuildForPlatform(t *testing.T) {
	p := Part{Name: "a", Version: "1", Builds: []Build{{Platform: "plan9/386"}}}
	if _, err := p.Build(); !errors.Is(err, ErrPlatform) {
		t.Errorf("Build: %v", err)
	}
}
