package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

func match(t pipeline.Tag, v string) pipeline.Match { return pipeline.Match{Tag: t, Value: v} }

func found(t *testing.T, a *archive.Archive, q pipeline.Query) string {
	t.Helper()
	r, err := a.Search(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.Count(context.Background(), q)
	if err != nil || q.Limit == 0 && q.Offset == 0 && n != len(r.Results) {
		t.Errorf("%d are counted, %d found, %v", n, len(r.Results), err)
	}
	return last(r.Results, q.Level)
}

func TestFuzzyNames(t *testing.T) { onEach(t, testFuzzyNames) }

func testFuzzyNames(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	for i, name := range []string{"Müller-Lüdenscheidt^Jörg", "Mueller^Anna", "MULLER^Ben^Karl", "Øster^Åse", "Yamada^Tarou=山田^太郎=やまだ^たろう", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^花子=ヤマダ^ハナコ", "O'Neil^Sean", "홍^길동", "van der Berg^Jan^^Dr."} {
		study := fmt.Sprint("1.2.", i+1)
		mustStore(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, name, pipeline.TagReferringPhysicianName, "House^Gregory"))
	}
	for _, c := range []struct{ value, want string }{
		{"müller", "1 2 3"},
		{"mueller", "1 2"},
		{"MULLER", "1 3"}, // u stands for ü, not for ue
		{"jörg müller", "1"},
		{"Joerg^Mueller", "1"},
		{"lüdenscheidt", "1"},
		{"mul b", "3"},
		{"karl", "3"},
		{"oster", "4"}, {"oester^aase", "4"}, {"ase", "4"},
		{"山田", "5 6"}, {"太郎", "5"}, {"やまだ", "5 6"}, {"ヤマダ^ハナコ", "6"}, {"ﾔﾏﾀﾞ", "5 6"},
		{"やまた", ""},
		{"neil", "7"}, {"o'neil", "7"},
		{"길동", "8"},
		{"berg*", "9"}, {"*berg*", "9"}, {"jan van", "9"},
		{"nobody", ""}, {"müller nobody", ""},
		{"m?ller*", "1 3"}, // wildcards inside: literal
		{"' OR 1=1 --", ""},
	} {
		if got := found(t, a, pipeline.Query{Fuzzy: true, Match: []pipeline.Match{match(pipeline.TagPatientName, c.value)}}); got != c.want {
			t.Errorf("%s: %q, want %q", c.value, got, c.want)
		}
	}
	if got := found(t, a, pipeline.Query{Fuzzy: true, Match: []pipeline.Match{match(pipeline.TagReferringPhysicianName, "greg"), match(pipeline.TagPatientName, "karl")}}); got != "3" {
		t.Errorf("referring physician: %q", got)
	}
	// Without fuzzymatching kana keep their voicing, and syllables stay whole.
	for value, want := range map[string]string{"*=山田*": "5 6", "yamada*=*=やまだ*": "5", "=山田^花子": "6", "*=*=やまた*": "", "홍^길?": "8", "홍^?": ""} {
		if got := found(t, a, pipeline.Query{Match: []pipeline.Match{match(pipeline.TagPatientName, value)}}); got != want {
			t.Errorf("literal %s: %q, want %q", value, got, want)
		}
	}
}

// requested is an object whose Request Attributes Sequence has an item for each pair of step and procedure.
func requested(t *testing.T, study, issuer string, steps ...string) []byte {
	t.Helper()
	in, err := dicom.Open(object(t, study, study+".1", study+".1.1"))
	if err != nil {
		t.Fatal(err)
	}
	d := slices.DeleteFunc(in.Header, func(e pipeline.Element) bool { return e.Tag.Group() == 2 })
	var items []pipeline.Dataset
	for i := 0; i < len(steps); i += 2 {
		var item pipeline.Dataset
		item.SetText(pipeline.TagAccessionNumber, "SH", "R"+steps[i])
		item.SetText(pipeline.TagScheduledProcedureStepID, "SH", steps[i])
		item.SetText(pipeline.TagRequestedProcedureID, "SH", steps[i+1])
		items = append(items, item)
	}
	d.SetItems(pipeline.TagRequestAttributesSequence, items...)
	var by pipeline.Dataset
	by.SetText(pipeline.TagLocalNamespaceEntityID, "UT", issuer)
	d.SetItems(pipeline.TagIssuerOfAccessionNumberSequence, by)
	d.SetText(pipeline.TagManufacturer, "LO", "Maker")
	d.SetText(pipeline.TagPatientAge, "AS", "042Y")
	d.SetBytes(0x00091010, "OB", []byte("private"))
	d.SetText(0x00090010, "LO", "PRIVATE")
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSequenceMatching(t *testing.T) { onEach(t, testSequenceMatching) }

func testSequenceMatching(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	mustStore(t, a, requested(t, "1.2.1", "HOSPITAL", "S1", "P1", "S2", "P2"), requested(t, "1.2.2", "CLINIC", "S1", "P2"), object(t, "1.2.3", "1.2.3.1", "1.2.3.1.1"))
	const step, procedure = pipeline.TagScheduledProcedureStepID, pipeline.TagRequestedProcedureID
	in := func(t pipeline.Tag, v string) pipeline.Match {
		return pipeline.Match{In: pipeline.TagRequestAttributesSequence, Tag: t, Value: v}
	}
	for _, c := range []struct {
		match []pipeline.Match
		want  string
	}{
		{[]pipeline.Match{in(step, "S1")}, "1.2.1.1 1.2.2.1"},
		{[]pipeline.Match{in(step, "S?")}, "1.2.1.1 1.2.2.1"},
		{[]pipeline.Match{in(step, "S1"), in(procedure, "P2")}, "1.2.2.1"}, // in one item
		{[]pipeline.Match{in(step, "S2"), in(procedure, "P2")}, "1.2.1.1"},
		{[]pipeline.Match{in(pipeline.TagAccessionNumber, "RS2")}, "1.2.1.1"},
		{[]pipeline.Match{in(step, "")}, "1.2.1.1 1.2.2.1 1.2.3.1"},
		{[]pipeline.Match{in(step, "nothing")}, ""},
		{[]pipeline.Match{{In: pipeline.TagIssuerOfAccessionNumberSequence, Tag: pipeline.TagLocalNamespaceEntityID, Value: "CLI*"}, match(pipeline.TagAccessionNumber, "A1")}, "1.2.2.1"},
	} {
		r, err := a.Search(context.Background(), pipeline.Query{Level: pipeline.SeriesLevel, Match: c.match})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range r.Results {
			got = append(got, d.String(pipeline.TagSeriesInstanceUID))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: %v, want %s", c.match, got, c.want)
		}
	}
	_, err := a.Search(context.Background(), pipeline.Query{Match: []pipeline.Match{in(step, "S1")}})
	if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "(0040,0275).(0040,0009)") {
		t.Error("a key of the series at the level of the study:", err)
	}
}

func TestInclude(t *testing.T) { onEach(t, testInclude) }

func testInclude(t *testing.T) {
	dir := t.TempDir()
	reads := 0
	a := open(t, dir, archive.Options{Header: func(path string) (*pipeline.Instance, error) { reads++; return dicom.OpenHeader(path) }})
	mustStore(t, a, requested(t, "1.2.1", "HOSPITAL", "S1", "P1"))
	reads = 0
	one := func(q pipeline.Query) pipeline.Dataset {
		t.Helper()
		r, err := a.Search(context.Background(), q)
		if err != nil || len(r.Results) != 1 {
			t.Fatal(r, err)
		}
		return r.Results[0]
	}
	paths := func(tags ...pipeline.Tag) (out [][]pipeline.Tag) {
		for _, t := range tags {
			out = append(out, []pipeline.Tag{t})
		}
		return out
	}
	if d := one(pipeline.Query{Include: paths(pipeline.TagStudyDescription, pipeline.TagPatientID)}); d.String(pipeline.TagPatientID) != "P1" || reads != 1 {
		t.Errorf("%d files are read; %v", reads, d)
	}
	reads = 0
	if one(pipeline.Query{Include: paths(pipeline.TagPatientID, pipeline.TagRows)}); reads != 0 {
		t.Errorf("%d files are read for what the index has or the level has not", reads)
	}
	d := one(pipeline.Query{Include: paths(pipeline.TagPatientAge, pipeline.TagManufacturer)})
	if _, ok := d.Get(pipeline.TagManufacturer); d.String(pipeline.TagPatientAge) != "042Y" || ok || reads != 1 {
		t.Errorf("study: %v", d)
	}
	d = one(pipeline.Query{Level: pipeline.SeriesLevel, Include: paths(pipeline.TagManufacturer)})
	if d.String(pipeline.TagManufacturer) != "Maker" {
		t.Errorf("series: %v", d)
	}
	for level, want := range map[pipeline.Level]string{pipeline.StudyLevel: "age", pipeline.SeriesLevel: "age maker", pipeline.InstanceLevel: "age maker private"} {
		d := one(pipeline.Query{Level: level, All: true})
		var got []string
		for _, c := range []struct {
			tag  pipeline.Tag
			name string
		}{{pipeline.TagPatientAge, "age"}, {pipeline.TagManufacturer, "maker"}, {0x00090010, "private"}, {0x00091010, "bytes"}} {
			if _, ok := d.Get(c.tag); ok {
				got = append(got, c.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("all at the level of the %s: %v, want %s", level, got, want)
		}
	}
	// A file that is gone leaves the result without the attribute.
	files, _ := filepath.Glob(filepath.Join(dir, "instances", "*", "*", "*"))
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if d := one(pipeline.Query{Include: paths(pipeline.TagPatientAge)}); d.String(pipeline.TagPatientAge) != "" || d.String(pipeline.TagPatientID) != "P1" {
		t.Errorf("%v", d)
	}
}

func TestDatesAndTimes(t *testing.T) { onEach(t, testDatesAndTimes) }

func testDatesAndTimes(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	for i, at := range []string{"20200101 090000", "20200101 1830", "20200102 08:30:15", "2020.01.03 235959.999", "20200104 ", "nonsense 12"} {
		date, clock, _ := strings.Cut(at, " ")
		study := fmt.Sprint("1.2.", i+1)
		mustStore(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagStudyDate, date, pipeline.TagStudyTime, clock))
	}
	for _, c := range []struct{ date, time, want string }{
		{"20200101", "", "1 2"},
		{"20200103-", "", "4 5"},
		{"-20200102", "", "1 2 3"},
		{"20200101-20200102", "", "1 2 3"},
		{"", "0830-0900", "1 3"},
		{"", "183000", "2"},
		{"", "235959.999000", "4"},
		{"", "18", "2"},
		// Both ranges are one range of moments (PS3.4 section C.2.2.2.5).
		{"20200101-20200102", "1200-0900", "2 3"},
		{"20200101-20200103", "1000-2359", "2 3 4"},
		{"20200101-", "1000-", "2 3 4 5"},
		{"-20200102", "-0800", "1 2"},
		// One date and a range of times are not.
		{"20200101", "0800-1000", "1"},
		{"20200101-20200103", "08", "3"},
	} {
		q := pipeline.Query{Match: []pipeline.Match{match(pipeline.TagStudyDate, c.date), match(pipeline.TagStudyTime, c.time)}}
		if got := found(t, a, q); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.date, c.time, got, c.want)
		}
	}
}

func TestOrder(t *testing.T) { onEach(t, testOrder) }

func testOrder(t *testing.T) {
	a := searched(t)
	for _, c := range []struct {
		order []pipeline.Order
		want  string
	}{
		{[]pipeline.Order{{Tag: pipeline.TagStudyDate, Descending: true}}, "5 3 2 1 4"},
		{[]pipeline.Order{{Tag: pipeline.TagPatientName}}, "5 2 1 3 4"},
		{[]pipeline.Order{{Tag: pipeline.TagNumberOfStudyRelatedInstances, Descending: true}, {Tag: pipeline.TagPatientID, Descending: true}}, "1 3 4 2 5"},
	} {
		if got := found(t, a, pipeline.Query{Order: c.order}); got != c.want {
			t.Errorf("%v: %q, want %q", c.order, got, c.want)
		}
		page, err := a.Search(context.Background(), pipeline.Query{Order: c.order, Limit: 2, Offset: 2})
		if err != nil || last(page.Results, pipeline.StudyLevel) != strings.Join(strings.Fields(c.want)[2:4], " ") || page.Left != 1 {
			t.Errorf("%v: a page of it is %q, %d left, %v", c.order, last(page.Results, pipeline.StudyLevel), page.Left, err)
		}
	}
	for _, bad := range []pipeline.Order{{Tag: pipeline.TagModality}, {Tag: pipeline.TagPatientComments}, {Tag: pipeline.TagModalitiesInStudy}} {
		if _, err := a.Search(context.Background(), pipeline.Query{Order: []pipeline.Order{bad}}); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestPagesWhileStudiesArrive: no study comes twice and none is left out when others arrive between two pages.
func TestPagesWhileStudiesArrive(t *testing.T) { onEach(t, testPagesWhileStudiesArrive) }

func testPagesWhileStudiesArrive(t *testing.T) {
	a := searched(t)
	q := pipeline.Query{Limit: 2, Match: []pipeline.Match{match(pipeline.TagStudyDate, "20000101-20301231")}}
	var got []string
	for n := 0; ; n++ {
		page, err := a.Search(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Fields(last(page.Results, pipeline.StudyLevel))...)
		if page.Left == 0 {
			break
		}
		if n < 2 { // before, between and behind in every other order
			study := fmt.Sprint("1.1.", 90+n)
			mustStore(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagStudyDate, fmt.Sprint(2010+5*n, "0101"), pipeline.TagPatientName, "AAA"))
		}
		q.Offset += 2
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "5", "90", "91"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestOrderedPagesMissNothing: in an order that is asked for, studies that arrive between two pages may bring a result again, and leave none
// out that was there at the first page. Results that are equal in that order keep their places.
func TestOrderedPagesMissNothing(t *testing.T) { onEach(t, testOrderedPagesMissNothing) }

func testOrderedPagesMissNothing(t *testing.T) {
	for _, descending := range []bool{false, true} {
		a := open(t, t.TempDir(), archive.Options{})
		put := func(study, date string) {
			t.Helper()
			mustStore(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagStudyDate, date))
		}
		missing := map[string]bool{}
		for n := range 12 {
			put(fmt.Sprint("1.2.", n), fmt.Sprint(20200101+n%3))
			missing[fmt.Sprint(n)] = true
		}
		q := pipeline.Query{Limit: 3, Order: []pipeline.Order{{Tag: pipeline.TagStudyDate, Descending: descending}}}
		again := 0
		for n := 0; ; n++ {
			page, err := a.Search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, study := range strings.Fields(last(page.Results, pipeline.StudyLevel)) {
				if number, _ := strconv.Atoi(study); number < 100 && !missing[study] {
					again++
				}
				delete(missing, study)
			}
			if page.Left == 0 {
				break
			}
			put(fmt.Sprint("1.2.", 100+n), []string{"20190101", "20200102", "20210101"}[n%3]) // before, among and behind
			q.Offset += q.Limit
		}
		if len(missing) > 0 || again == 0 || again > 6 {
			t.Errorf("descending %v: %v were left out, %d came again", descending, missing, again)
		}
	}
}

// TestColumnsAgainstSQL: what is answered from memory is what SQL answers, while studies come, change and go.
func TestColumnsAgainstSQL(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{Replace: true})
	r := rand.New(rand.NewPCG(5, 6))
	names := []string{"Smith^John", "Smithson^Ann", "smith", "Smith^Jonathan Alexander", "Smith^Jonathan Alexandra", "Müller^J", "", "Doe^J=山田^太郎", "=山田", "Z"}
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	for round := range 6 {
		for range 25 {
			study := fmt.Sprint("1.2.", 1+r.IntN(60))
			store(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, pick(names),
				pipeline.TagStudyDate, pick([]string{"20200101", "20200615", "20210101", "", "x"}), pipeline.TagModality, pick([]string{"DX", "CR", "SR", ""})))
		}
		for range 40 {
			q := pipeline.Query{Limit: 1 + r.IntN(20), Offset: r.IntN(10)}
			q.Match = []pipeline.Match{
				match(pipeline.TagPatientName, pick([]string{"", "smith*", "Smith^J*", "smith", "Smith^Jonathan Alex*", "Smith^Jonathan Alexander", "*j*", "山*", "=山田*", "doe*=*", "m?ller*"})),
				match(pipeline.TagStudyDate, pick([]string{"", "20200101", "20200101-20201231", "-20200615", "20200615-"})),
				match(pipeline.TagModalitiesInStudy, pick([]string{"", "DX", "CR,SR", "?R", "XX"})),
				match(pipeline.TagPatientSex, pick([]string{"", "", "", "M"})),
			}
			got, err := a.Search(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			// Sorting by what never differs leaves the order and takes the way of SQL.
			q.Order = []pipeline.Order{{Tag: pipeline.TagIssuerOfPatientID}}
			want, err := a.Search(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(last(want.Results, pipeline.StudyLevel), last(got.Results, pipeline.StudyLevel)); diff != "" || want.Left != got.Left {
				t.Fatalf("round %d, %v: %d and %d left\n%s", round, q.Match, want.Left, got.Left, diff)
			}
		}
	}
}

// TestBombs: patterns made to cost time end in bounded time, whatever the names are made of.
func TestBombs(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	long := strings.Repeat("a", 64)
	for i := range 20 {
		study := fmt.Sprint("1.2.", i+1)
		mustStore(t, a, object(t, study, study+".1", study+".1.1", pipeline.TagPatientID, long, pipeline.TagPatientName, long, pipeline.TagModality, "AAAAAAAAAAAAAAAA"))
	}
	begun := time.Now()
	for _, m := range []pipeline.Match{
		match(pipeline.TagPatientID, "*a*a*a*a*a*a*ab"), match(pipeline.TagPatientName, "a*a*a*a*a*a*a*ab"), match(pipeline.TagModalitiesInStudy, "*A*A*A*A*A*A*AB"),
		match(pipeline.TagPatientID, "*"+strings.Repeat("?a", 200)), match(pipeline.TagPatientName, strings.Repeat("*?", 8)+"b"), match(pipeline.TagPatientID, "a' OR '1'='1"),
		match(pipeline.TagPatientID, `a" OR 1=1; DROP TABLE study; --`), match(pipeline.TagPatientName, "[!b]*"), match(pipeline.TagPatientID, "[a-z]*"),
	} {
		r, err := a.Search(context.Background(), pipeline.Query{Match: []pipeline.Match{m}})
		if err != nil || len(r.Results) > 0 {
			t.Errorf("%s: %d results, %v", m.Value, len(r.Results), err)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("they took %v", took)
	}
	q := pipeline.Query{}
	for range 101 {
		q.Match = append(q.Match, match(pipeline.TagPatientID, "x"))
	}
	if _, err := a.Search(context.Background(), q); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error("too many keys:", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Search(ended, pipeline.Query{}); !errors.Is(err, context.Canceled) {
		t.Error("a client that has gone:", err)
	}
}

// TestSearchWhileStudiesArrive: what has been stored is found at once, by whoever looks, and never less than before.
func TestSearchWhileStudiesArrive(t *testing.T) { onEach(t, testSearchWhileStudiesArrive) }

func testSearchWhileStudiesArrive(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	var work sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		work.Go(func() {
			for before := 0; ; {
				select {
				case <-done:
					return
				default:
				}
				r, err := a.Search(context.Background(), pipeline.Query{Limit: 5, Match: []pipeline.Match{match(pipeline.TagPatientName, "probe*"), match(pipeline.TagModalitiesInStudy, "DX")}})
				n := len(r.Results) + r.Left
				if err != nil || n < before {
					t.Errorf("%d studies after %d, %v", n, before, err)
					return
				}
				before = n
			}
		})
	}
	for i := range 60 {
		study := fmt.Sprint("1.2.", i)
		mustStore(t, a, object(t, study, study+".1", study+".1.1"))
		if n, err := a.Count(context.Background(), pipeline.Query{Match: []pipeline.Match{match(pipeline.TagStudyDate, "20260102")}}); err != nil || n != i+1 {
			t.Errorf("%d of %d studies, %v", n, i+1, err)
		}
	}
	close(done)
	work.Wait()
}
