package dicom

import "chatxray/pipeline"

// upright returns how the image is brought upright: head up and, for a frontal view, the patient's left on the right.
//
// Patient Orientation (0020,0020) decides: the direction of a row, then of a column, each by its first letter. Only a pair of
// head-foot with left-right or anterior-posterior does; the image stays as stored for any other value, and where the attribute is
// absent. A lateral view is turned head up and otherwise left: either way in which the patient may face is upright.
//
// Field of View Rotation and Horizontal Flip (0018,7032 and 7034) are not looked at: they say how the pixels lie to the detector, not
// to the patient (PS3.3 section C.8.11.3).
func upright(h pipeline.Dataset) pipeline.Orientation {
	directions := h.Strings(pipeline.TagPatientOrientation)
	if len(directions) != 2 || directions[0] == "" || directions[1] == "" {
		return pipeline.Orientation{}
	}
	row, column := directions[0][0], directions[1][0]
	var o pipeline.Orientation
	if row == 'H' || row == 'F' {
		o.Transpose = true
		row, column = column, row
	}
	if column != 'H' && column != 'F' {
		return pipeline.Orientation{}
	}
	switch row {
	case 'L', 'A', 'P':
	case 'R':
		o.FlipX = true
	default:
		return pipeline.Orientation{}
	}
	o.FlipY = column == 'H'
	return o
}
