package pipeline

// Staged is an instance that an archive has taken but not yet promised to keep: its bytes lie in a temporary file. It is either
// committed or discarded, by the archive that staged it.
type Staged struct {
	Instance *Instance // Path is the temporary file; Header holds only the attributes that the index keeps
	Size     int64     // of the file, in bytes
	Lane     Lane      // where its study is to wait
}

// Outcome is what became of one staged instance. Err nil means that its bytes and its index entry are on disk.
type Outcome struct {
	Instance  *Instance
	Duplicate bool  // the archive had it already, with the same content
	Replaced  bool  // the archive had it with other content, which is history now
	Err       error // wraps ErrConflict, ErrFull, ErrInvalid ...
}

// Level is a level of the information model of a query (PS3.4 section C.6).
type Level int

// The levels.
const (
	StudyLevel Level = iota
	SeriesLevel
	InstanceLevel
)

// String returns the level's name in lower case.
func (l Level) String() string { return [...]string{"study", "series", "instance"}[l] }

// Match is one key of a query with the value that it must match, as DICOM writes it (PS3.4 section C.2.2.2): single value, wildcards
// * and ?, range a-b, list of UIDs with commas or backslashes. An empty value matches everything.
type Match struct {
	In    Tag // the sequence whose items have the attribute; 0 where the data set itself has it
	Tag   Tag
	Value string
}

// Order is one criterion by which results are sorted.
type Order struct {
	Tag        Tag
	Descending bool
}

// Query asks an archive for the studies, series or instances that match every key.
type Query struct {
	Level   Level
	Match   []Match
	Fuzzy   bool    // person names match by the beginnings of their words, in any order
	Order   []Order // then the order of arrival
	Include [][]Tag // attributes wanted beside those that come anyway; sequences above the attribute first
	All     bool    // every attribute that there is at the level
	Limit   int     // at most so many results; 0 is no limit
	Offset  int     // results to leave out first
}

// Found is a page of what matches a query.
type Found struct {
	Results []Dataset // a result at a lower level has the attributes of the levels above
	Left    int       // results behind Limit
	AtLeast bool      // there may be more than Left
}
