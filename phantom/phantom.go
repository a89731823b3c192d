// Package phantom draws synthetic chest radiographs with planted findings, for the demonstration and for tests: anatomy good enough for
// windowing, view and refusal logic. It is no model of a patient: never train on a phantom, never measure a model's quality with one.
// Header (Patient ID, Patient's Name, Quality Control Image, comments) and image (a lead marker) say that it is one.
package phantom

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

// Side is a side of the patient. On a frontal image the patient's right is at the left edge. The zero value is no side: the finding is not planted.
type Side string

// The sides.
const (
	NoSide Side = ""
	Right  Side = "right"
	Left   Side = "left"
)

// Device is something that does not belong in a body.
type Device string

// The devices.
const (
	NoDevice     Device = ""
	CentralLine  Device = "central-line"  // jugular, its tip in the superior vena cava
	Pacemaker    Device = "pacemaker"     // a generator below the clavicle and one lead to the right ventricle
	ChestTube    Device = "chest-tube"    // through the lateral wall to the apex
	TrachealTube Device = "tracheal-tube" // in the midline, its tip above the carina; DeviceSide says nothing
)

// View is the projection.
type View string

// The views.
const (
	PA View = "PA"
	AP View = "AP"
	LL View = "LL" // left lateral; without findings
)

// The photometric interpretations.
const (
	Monochrome1 = "MONOCHROME1"
	Monochrome2 = "MONOCHROME2"
)

// Limits of the matrix. Nothing that is smaller than the least is recognised as a chest.
const (
	LeastSide   = 128
	LargestSide = 8192
)

// Options say what to draw. The zero value of every field but Seed is replaced by what the comment names.
type Options struct {
	// Seed varies everything that is not asked for: shape, noise, position. Equal options give equal pixels and header.
	Seed          uint64
	Rows, Columns int       // 2500, 2048
	BitsStored    int       // 12; 8 to 16
	Photometric   string    // MONOCHROME2
	View          View      // PA
	Date          time.Time // of the study, in its own time zone: 2024-01-01 12:00

	Effusion      Side
	Opacity       Side
	Pneumothorax  Side
	EnlargedHeart bool
	Device        Device
	DeviceSide    Side // Right; Left for a pacemaker
}

func (o Options) withDefaults() Options {
	replace(&o.Rows, 2500)
	replace(&o.Columns, 2048)
	replace(&o.BitsStored, 12)
	replace(&o.Photometric, Monochrome2)
	replace(&o.View, PA)
	if o.Date.IsZero() {
		o.Date = time.Date(2024, 1, 1, 12, 0, 0, 0, time.UTC)
	}
	switch {
	case o.Device == NoDevice || o.Device == TrachealTube:
		o.DeviceSide = NoSide
	case o.Device == Pacemaker:
		replace(&o.DeviceSide, Left)
	default:
		replace(&o.DeviceSide, Right)
	}
	return o
}

// findings names what is planted, for a header: "pleural effusion left, device pacemaker left".
func (o Options) findings() string {
	var out []string
	for _, f := range []struct {
		name string
		side Side
	}{{"pleural effusion", o.Effusion}, {"lung opacity", o.Opacity}, {"pneumothorax", o.Pneumothorax}} {
		if f.side != NoSide {
			out = append(out, f.name+" "+string(f.side))
		}
	}
	if o.EnlargedHeart {
		out = append(out, "enlarged heart")
	}
	if o.Device != NoDevice {
		out = append(out, strings.TrimSpace("device "+string(o.Device)+" "+string(o.DeviceSide)))
	}
	return strings.Join(out, ", ")
}

func replace[T comparable](v *T, other T) {
	var zero T
	if *v == zero {
		*v = other
	}
}

func (o Options) check() error {
	sides := []Side{NoSide, Right, Left}
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{o.Rows >= LeastSide && o.Rows <= LargestSide && o.Columns >= LeastSide && o.Columns <= LargestSide,
			fmt.Sprintf("%d rows and %d columns; both must be %d to %d", o.Rows, o.Columns, LeastSide, LargestSide)},
		{o.BitsStored >= 8 && o.BitsStored <= 16, fmt.Sprintf("%d bits stored; it must be 8 to 16", o.BitsStored)},
		{o.Photometric == Monochrome1 || o.Photometric == Monochrome2, fmt.Sprintf("photometric interpretation %.40q; it must be %s or %s", o.Photometric, Monochrome1, Monochrome2)},
		{slices.Contains([]View{PA, AP, LL}, o.View), fmt.Sprintf("view %.40q; it must be PA, AP or LL", o.View)},
		{slices.Contains(sides, o.Effusion) && slices.Contains(sides, o.Opacity) && slices.Contains(sides, o.Pneumothorax) && slices.Contains(sides, o.DeviceSide), "a side must be right or left"},
		{slices.Contains([]Device{NoDevice, CentralLine, Pacemaker, ChestTube, TrachealTube}, o.Device), fmt.Sprintf("device %.40q; it must be %s, %s, %s or %s", o.Device, CentralLine, Pacemaker, ChestTube, TrachealTube)},
		{o.View != LL || o.findings() == "", "findings are planted in frontal views only; ask for PA or AP, or for no finding"},
		{o.Date.Year() >= 1900 && o.Date.Year() <= 9999, "the date is not in the years 1900 to 9999"},
	} {
		if !c.ok {
			return fmt.Errorf("%w phantom: %s", pipeline.ErrInvalid, c.why)
		}
	}
	return nil
}

// Phantom is a drawn radiograph. It never changes.
type Phantom struct {
	Options Options  // as drawn: no zero values
	Words   []uint16 // Rows×Columns stored words, row by row; those of MONOCHROME1 are dark where the body is dense
	Spacing float64  // mm at the detector, the same along rows and columns

	low, high int // the words between which the body lies, for the window
}

// Draw makes a phantom. Its errors wrap pipeline.ErrInvalid and say which option is out of range. 2500×2048 takes about a
// second of one core and 70 MB of memory; GOMAXPROCS cores are used. The pixels do not depend on the number of cores.
func Draw(o Options) (*Phantom, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	s := newScene(o)
	f := newField(o.Rows, o.Columns)
	if o.View == LL {
		s.drawLateral(f)
	} else {
		s.drawFrontal(f)
	}
	return s.expose(f), nil
}
