package sr_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/sr"
)

// references is the folder of example documents that other people's tools wrote and three validators accept.
func references(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "..", "shared", "reference", "sr")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("../shared absent: %v", err)
	}
	return path
}

// like is the reading that the references are about, as far as a reading without boxes and certainties can be.
func like() sr.Input {
	in := effusion()
	in.Reading.Language = "en-US"
	in.Header.SetItems(pipeline.TagProcedureCodeSequence, coded("36554-4", "LN", "XR Chest Single View"))
	in.Reading.Sentences = []pipeline.Sentence{
		sentence(pipeline.SectionFindings, 2.3, "Small right apical pneumothorax."),
		sentence(pipeline.SectionFindings, 0.4, "No pleural effusion."),
		sentence(pipeline.SectionImpression, 1.7, "Small right apical pneumothorax."),
	}
	in.Reading.Findings = []pipeline.Finding{
		{Label: "Edema", Presence: pipeline.Absent, Sentences: []int{1}},
		{Label: "Pneumothorax", Presence: pipeline.Present, Sentences: []int{0}},
		{Label: "Pleural Effusion", Presence: pipeline.Absent, Sentences: []int{1}},
	}
	return in
}

var (
	treeLine   = regexp.MustCompile(`^( *)<([a-z ]*?)([A-Z0-9]+):(?:\(([^,]*),([^,]*),"[^"]*"\))?`)
	headerLine = regexp.MustCompile(`^( *)\(([0-9a-f]{4},[0-9a-f]{4})\)`)
)

// chains reads a dump whose nesting is its indentation, and returns each different chain of names once, sorted.
func chains(out string, name func(line string) (indent int, s string, ok bool)) []string {
	type level struct {
		indent int
		chain  string
	}
	var above []level
	var found []string
	for line := range strings.Lines(out) {
		indent, s, ok := name(line)
		if !ok {
			continue
		}
		for len(above) > 0 && above[len(above)-1].indent >= indent {
			above = above[:len(above)-1]
		}
		if len(above) > 0 {
			s = above[len(above)-1].chain + "/" + s
		}
		above = append(above, level{indent, s})
		found = append(found, s)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// tree lists relationship, value type and concept name of every content item, as dsrdump reads them.
func tree(t *testing.T, file string) []string {
	out, err := exec.CommandContext(t.Context(), tool(t, "dsrdump", "dcmtk"), "+Pc", "+Pl", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	return chains(string(out), func(line string) (int, string, bool) {
		m := treeLine.FindStringSubmatch(line)
		if m == nil {
			return 0, "", false
		}
		return len(m[1]), strings.Join(strings.Fields(m[2]+" "+m[3]+" "+m[4]+" "+m[5]), " "), true
	})
}

// attributes lists the tag of every attribute outside the content tree, as dcmdump reads them.
func attributes(t *testing.T, file string) []string {
	out, err := exec.CommandContext(t.Context(), tool(t, "dcmdump", "dcmtk"), file).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := chains(string(out), func(line string) (int, string, bool) {
		m := headerLine.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(m[2], "fffe") || strings.HasPrefix(m[2], "0002") {
			return 0, "", false
		}
		return len(m[1]), m[2], true
	})
	return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "0040,a730/") })
}

// minus returns what is in a and not in b.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func TestReference(t *testing.T) {
	dir := references(t)
	const group = "CONTAINER 126000 DCM/contains CONTAINER 126010 DCM/contains CONTAINER 125007 DCM/"
	const library = "CONTAINER 126000 DCM/contains CONTAINER 111028 DCM/contains CONTAINER 126200 DCM/"
	const evaluations = "CONTAINER 126000 DCM/contains CONTAINER C0034375 UMLS/"
	const report = "CONTAINER 18748-4 LN/"
	for _, c := range []struct {
		kind                                pipeline.DocumentKind
		file                                string
		more, fewer, moreHeader, lessHeader []string
	}{
		{kind: pipeline.FindingsSR, file: "a_tid1500_c3d.dcm",
			more: []string{evaluations + "contains CODE 36118008 SCT", evaluations + "contains CODE 60046008 SCT"},
			fewer: []string{
				group + "contains CODE 130400 DCM", // a box
				group + "contains NUM 111012 DCM",  // a certainty: only a calibrated one is stated
				group + "contains SCOORD 111030 DCM",
				group + "contains SCOORD 111030 DCM/selected from IMAGE",
				group + "has concept mod CODE 363698007 SCT", // a site
				group + "has concept mod CODE 363698007 SCT/has concept mod CODE 272741003 SCT",
				evaluations + "has concept mod TEXT 111001 DCM", // stated for each group
				evaluations + "has concept mod TEXT 111003 DCM",
				library + "has acq context CODE 123014 DCM", // target region
				library + "has acq context DATE 111060 DCM", // study date
			}},
		{kind: pipeline.NarrativeSR, file: "b_tid2000_basictext.dcm",
			more: []string{
				report + "contains CONTAINER 19005-8 LN/contains TEXT 121073 DCM/inferred from IMAGE 121080 DCM",
				report + "contains CONTAINER 19005-8 LN/contains TEXT 121073 DCM/inferred from TEXT image-evidence 99CHATXRAY",
				report + "contains CONTAINER 59776-5 LN/contains TEXT 121071 DCM/inferred from TEXT image-evidence 99CHATXRAY",
			},
			fewer: []string{report + "contains CONTAINER 59776-5 LN/contains CODE 121071 DCM"}}, // coded findings have their own document
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			ours, theirs := filepath.Join(t.TempDir(), "ours.dcm"), filepath.Join(dir, c.file)
			d, err := sr.Dataset(like(), c.kind)
			if err != nil {
				t.Fatal(err)
			}
			store(t, ours, d)
			theirTree, theirHeader := tree(t, theirs), attributes(t, theirs)
			if len(theirTree) < 15 || len(theirHeader) < 60 {
				t.Fatalf("the reference reads as %d content items and %d attributes", len(theirTree), len(theirHeader))
			}
			compare := func(what string, got, want []string) {
				t.Helper()
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s:\n%s", what, diff)
				}
			}
			compare("content items beyond the reference", minus(tree(t, ours), theirTree), c.more)
			compare("content items of the reference that are missing", minus(theirTree, tree(t, ours)), c.fewer)
			compare("attributes beyond the reference", minus(attributes(t, ours), theirHeader), []string{
				"0008,0110/0008,0103",                                               // the version of the private codes
				"0008,1010",                                                         // Station Name
				"0018,a001/0018,a003",                                               // Contribution Description
				"0040,a372/0008,0100", "0040,a372/0008,0102", "0040,a372/0008,0104", // the procedure's code
			})
			compare("attributes of the reference that are missing", minus(theirHeader, attributes(t, ours)), []string{})

			// The comparison sees a missing content item and a missing attribute.
			root := d.Items(pipeline.TagContentSequence)
			d.SetItems(pipeline.TagContentSequence, root[1:]...)
			store(t, ours, slices.DeleteFunc(d, func(e pipeline.Element) bool { return e.Tag == pipeline.TagPreliminaryFlag }))
			if len(minus(theirTree, tree(t, ours))) == len(c.fewer) || len(minus(theirHeader, attributes(t, ours))) == 0 {
				t.Error("a document without its first content item and without Preliminary Flag compares equal")
			}
		})
	}
}
