package pipeline

// Bulk is a binary value that a header leaves out: pixels, documents, waveforms, overlays, anything long.
type Bulk struct {
	Path   string // ggggeeee, inside of sequences ggggeeee/item/ggggeeee..., items from 1
	VR     string
	Length int64 // in bytes; -1 for fragments, as compressed pixels are
}

// Window is a choice of gray values in place of an object's own VOI transformation (PS3.3 section C.11.2).
type Window struct {
	Center, Width float64
	Function      string // LINEAR, LINEAR_EXACT or SIGMOID
}

// View says which part of a frame is shown, and how. The zero View is the whole frame, pixel for pixel, as the object wants it shown.
type View struct {
	Window *Window // nil: what the object says
	// The region in stored pixels. Width or Height 0 is everything to the right of Left, or below Top.
	Left, Top, Width, Height int
	FlipX, FlipY             bool // left and right, top and bottom are exchanged
	// The picture is made as large as fits into this, its shape kept; 0 and 0 keep the region's own size.
	FitWidth, FitHeight int
}
